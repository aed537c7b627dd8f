/**
 * What a lookup of providers may cost, whatever DHT is given.
 */
import { Duration, Effect, Stream } from "effect"
import type { ContentKey, Provider } from "../schema/Content.ts"
import { DhtError, QueryTimeout } from "../schema/NetworkError.ts"
import type { FindOptions } from "../services/Dht.ts"
import type { KadDhtPolicyOptions } from "./KadDhtPolicy.ts"

/**
 * Ends the lookup of a key after `maxProviders`, and after `findTimeout`: with `QueryTimeout` when nobody has been found by then. What the
 * caller leaves out, the policy says.
 */
export const within =
  (key: ContentKey, policy: Pick<KadDhtPolicyOptions, "maxProviders" | "findTimeout">, options: FindOptions = {}) =>
  (providers: Stream.Stream<Provider, DhtError>): Stream.Stream<Provider, DhtError> =>
    Stream.suspend(() => {
      const after = Duration.fromInputUnsafe(options.findTimeout ?? policy.findTimeout)
      let isFound = false
      let isLate = false
      return providers.pipe(
        Stream.interruptWhen(Effect.andThen(Effect.sleep(after), Effect.sync(() => isLate = true))),
        Stream.mapArray((some) => {
          isFound = true
          return some
        }),
        Stream.concat(Stream.suspend(() =>
          isLate && !isFound
            ? Stream.fail(
              new DhtError({ operation: "findProviders", subject: key, reason: new QueryTimeout({ after }) })
            )
            : Stream.empty
        )),
        Stream.take(options.maxProviders ?? policy.maxProviders)
      )
    })
