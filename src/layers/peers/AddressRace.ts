/**
 * A race between several addresses of one peer, as in RFC 8305 (Happy Eyeballs): the first is dialled, the next one
 * follows after the policy's stagger, or at once when a dial fails. The first connection wins, and the other dials are
 * aborted.
 */
import { Duration, Effect, Latch, Semaphore } from "effect"
import { DialError, DialTimeout, mergeDialReasons, Unreachable } from "../../schema/NetworkError.ts"
import type { Multiaddr } from "../../schema/Peer.ts"
import type { DialPolicyOptions } from "../../services/DialPolicy.ts"

/**
 * Dials the addresses in their order until one answers. `attempt` dials one address; where there are several, each has
 * the policy's timeout. Fails when all dials have failed, with one reason for all of them. Interruption aborts all
 * dials. Two connections that stand in one step both stay: the peer table decides between them, as between any two.
 */
export const race = <A>(
  target: string,
  addresses: ReadonlyArray<Multiaddr>,
  policy: DialPolicyOptions,
  attempt: (address: Multiaddr) => Effect.Effect<A, DialError>
): Effect.Effect<A, DialError> => {
  const timeout = Duration.fromInputUnsafe(policy.timeout)
  const dial = (address: Multiaddr) =>
    Effect.timeoutOrElse(attempt(address), {
      duration: timeout,
      orElse: () => Effect.fail(new DialError({ target: address, reason: new DialTimeout({ after: timeout }) }))
    })
  const [only] = addresses
  if (only === undefined) {
    return Effect.fail(new DialError({ target, reason: new Unreachable({ detail: "no address is known" }) }))
  }
  // No other address waits behind it, so the time limit of the whole dial is enough.
  if (addresses.length === 1) return attempt(only)
  return Effect.suspend(() => {
    const permits = Semaphore.makeUnsafe(Math.max(1, policy.parallelDials))
    const failures: Array<DialError> = []
    const from = (index: number): Effect.Effect<A, DialError> => {
      const address = addresses[index]
      if (address === undefined) return Effect.never
      const failed = Latch.makeUnsafe(false)
      const own = permits.withPermit(dial(address)).pipe(
        Effect.catch((error) => {
          failures.push(error)
          if (failures.length === addresses.length) {
            const reason = mergeDialReasons(failures.map(({ reason }) => reason), failures[0])
            return Effect.fail(new DialError({ target, reason }))
          }
          // The dials that remain decide the outcome.
          return Effect.andThen(failed.open, Effect.never)
        })
      )
      const next = Effect.raceFirst(Effect.sleep(policy.stagger), failed.await).pipe(
        Effect.andThen(Effect.suspend(() => from(index + 1)))
      )
      return Effect.raceFirst(own, next)
    }
    return from(0)
  })
}
