/**
 * Several addresses of one peer raced against each other, as RFC 8305 (Happy Eyeballs) does it: the first is dialled, the next follows after
 * the policy's stagger, or at once when one has failed. The first connection wins, and the other dials are aborted.
 */
import { Duration, Effect, Latch, Semaphore } from "effect"
import { DialError, DialTimeout, Unreachable } from "../../schema/NetworkError.ts"
import type { Multiaddr } from "../../schema/Peer.ts"
import type { DialPolicyOptions } from "../../services/DialPolicy.ts"

/**
 * Dials the addresses in their order until one answers. `attempt` dials one of them; of several each has the policy's timeout. Fails when all have
 * failed: with what they have in common, else with `Unreachable` and each one's reason. Interruption aborts all dials. A second connection
 * that stands in the very step in which the first does is left to the table, as any second one.
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
  // Nothing waits behind it, so the dial as a whole bounds it.
  if (addresses.length === 1) return attempt(only)
  return Effect.suspend(() => {
    const slots = Semaphore.makeUnsafe(Math.max(1, policy.parallelDials))
    const failures: Array<DialError> = []
    const from = (index: number): Effect.Effect<A, DialError> => {
      const address = addresses[index]
      if (address === undefined) return Effect.never
      const failed = Latch.makeUnsafe(false)
      const own = slots.withPermit(dial(address)).pipe(
        Effect.catch((error) => {
          failures.push(error)
          if (failures.length === addresses.length) return Effect.fail(together(target, failures))
          // Whoever is left decides.
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

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const together = (target: string, failures: ReadonlyArray<DialError>): DialError => {
  const tags = new Set(failures.map(({ reason }) => reason._tag))
  // That somebody is there and said no tells more than that elsewhere nobody is.
  const common = failures.find(({ reason }) => reason._tag === "Denied" || reason._tag === "Refused") ??
    (tags.size === 1 ? failures[0] : undefined)
  if (common !== undefined && common.reason._tag !== "Unreachable") {
    return new DialError({ target, reason: common.reason })
  }
  const detail = [...new Set(failures.map(({ reason }) => reason.message))].join("; ")
  return new DialError({ target, reason: new Unreachable({ detail, cause: failures[0] }) })
}
