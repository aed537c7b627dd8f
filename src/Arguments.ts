/**
 * Reads the arguments of `Network`'s functions. Each reader gives the canonical form of what a program passed, or fails
 * typed with one line that says what was wrong. A program in plain JavaScript may pass anything.
 */
import { Duration, Effect, Option, Result, Schema } from "effect"
import * as Canonical from "./schema/Canonical.ts"
import * as ContentKey from "./schema/Content.ts"
import {
  DhtError,
  DialError,
  InvalidAddress,
  InvalidPeerId,
  ProtocolError,
  RecordInvalid
} from "./schema/NetworkError.ts"
import { undialable } from "./schema/OptionTable.ts"
import {
  type DialTarget,
  type Multiaddr,
  type PeerId,
  ProtocolId,
  readMultiaddr,
  readPeerId,
  readTarget,
  type TargetText
} from "./schema/Peer.ts"
import type { FindOptions, ValueOptions } from "./services/Dht.ts"
import type { HandleOptions } from "./services/Protocols.ts"

/** A multiaddr in any of its forms. */
export function addressOf(text: string): Effect.Effect<Multiaddr, InvalidAddress> {
  return Effect.mapError(Effect.fromResult(readMultiaddr(text)), (detail) => new InvalidAddress({ detail }))
}

/** As the option `announceAddresses`, which refuses what nobody can dial. */
export function announcedOf(text: string): Effect.Effect<Multiaddr, InvalidAddress> {
  return Effect.flatMap(addressOf(text), (address) => {
    const detail = undialable(address)
    return detail === undefined ? Effect.succeed(address) : Effect.fail(new InvalidAddress({ detail }))
  })
}

/** What a program may dial. */
export function targetOf(target: DialTarget | TargetText): Effect.Effect<DialTarget, DialError> {
  return Result.match(readTarget(target), {
    onFailure: (detail) =>
      Effect.fail(
        new DialError({
          target: Canonical.shortened(typeof target === "object" ? target?.id : target),
          reason: new InvalidAddress({ detail })
        })
      ),
    onSuccess: Effect.succeed
  })
}

/** A peer id in any of its forms. */
export function peerIdOf(peer: string): Effect.Effect<PeerId, InvalidPeerId> {
  return Effect.fromResult(Result.mapError(readPeerId(peer), (detail) => new InvalidPeerId({ detail })))
}

/** The key of some content in any of its forms. */
export function keyOf(operation: DhtError["operation"], key: string): Effect.Effect<ContentKey.ContentKey, DhtError> {
  return Effect.fromResult(
    Result.mapError(ContentKey.parse(key), ({ detail }) => recordInvalid(operation, key, detail))
  )
}

/** The id of a protocol. */
export function protocolOf(protocol: string): Effect.Effect<ProtocolId, ProtocolError> {
  return isProtocolId(protocol) ? Effect.succeed(protocol) : Effect.fail(
    new ProtocolError({
      protocol: Canonical.shortened(protocol),
      detail: "expected a slash, then 1 to 255 characters without spaces"
    })
  )
}

/** The options of a handler. A comparison with what is no number is false, so a wrong limit would be none. */
export function handleOptionsOf<E, R>(
  protocol: ProtocolId,
  options: HandleOptions<E, R> | undefined
): Effect.Effect<void, ProtocolError> {
  // A misspelled `authorize` would let everybody in.
  const unknown = Object.keys(options ?? {}).find((name) => !handleOptions.has(name))
  if (unknown !== undefined) {
    const detail = `${Canonical.shortened(unknown)}: there is no such option; expected ${[...handleOptions].join(", ")}`
    return Effect.fail(new ProtocolError({ protocol, detail }))
  }
  for (const name of ["maxStreamsPerPeer", "maxBufferedBytesPerPeer"] as const) {
    const limit = options?.[name]
    if (limit !== undefined && !(Number.isInteger(limit) && limit > 0)) {
      const detail = `${name}: expected a whole number from 1, got ${Canonical.shortened(limit)}`
      return Effect.fail(new ProtocolError({ protocol, detail }))
    }
  }
  const authorize: unknown = options?.authorize
  return authorize === undefined || typeof authorize === "function"
    ? Effect.void
    : Effect.fail(new ProtocolError({ protocol, detail: "authorize: expected a function of the peer id" }))
}

/** What a lookup of providers may cost. */
export function findOptionsOf(key: string, options: FindOptions | undefined): Effect.Effect<FindOptions, DhtError> {
  const { findTimeout, maxProviders } = options ?? {}
  const timeout = findTimeout === undefined ? undefined : Duration.fromInput(findTimeout)
  const problem = maxProviders !== undefined && !(Number.isInteger(maxProviders) && maxProviders > 0)
    ? `maxProviders: expected a whole number from 1, got ${maxProviders}`
    : timeout !== undefined && !(Option.isSome(timeout) && Duration.toMillis(timeout.value) > 0)
    ? `findTimeout: expected a duration above zero, got ${Canonical.shortened(findTimeout)}`
    : undefined
  return problem === undefined
    ? Effect.succeed(options ?? {})
    : Effect.fail(recordInvalid("findProviders", key, problem))
}

/** How many nodes a value needs. */
export function quorumOf(
  operation: DhtError["operation"],
  path: string,
  options: ValueOptions | undefined
): Effect.Effect<void, DhtError> {
  const quorum = options?.quorum
  return quorum === undefined || (Number.isInteger(quorum) && quorum >= 0)
    ? Effect.void
    : Effect.fail(recordInvalid(operation, path, `quorum: expected a whole number from 0, got ${quorum}`))
}

/** An error of the DHT for an argument that makes no sense. */
export function recordInvalid(operation: DhtError["operation"], subject: string, detail: string): DhtError {
  return new DhtError({ operation, subject: Canonical.shortened(subject), reason: new RecordInvalid({ detail }) })
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const isProtocolId = Schema.is(ProtocolId)

const handleOptions: ReadonlySet<string> = new Set(["maxStreamsPerPeer", "maxBufferedBytesPerPeer", "authorize"])
