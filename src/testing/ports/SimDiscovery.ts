/**
 * Discovery on the local network that the simulated nodes share, as multicast DNS does it: a node asks at its start and
 * every few seconds, every node that hears the question answers, and the first question also announces the asking node.
 * Sightings repeat.
 */
import { type Duration, Effect, Layer, Schedule } from "effect"
import type { PeerAddresses, PeerId } from "../../schema/Peer.ts"
import { Discovery } from "../../services/Discovery.ts"
import { Transport } from "../../services/Transport.ts"
import { type SimMachine, SimNetwork } from "../network/SimNetwork.ts"

/** Options of the simulated discovery. */
export interface SimDiscoveryOptions {
  /** The time between two questions. Defaults to 3 seconds, as for mDNS. */
  readonly interval?: Duration.Input | undefined
}

/**
 * Tells `Discovery` of the other nodes of the network that have this layer too, while the scope lives.
 */
export const make = Effect.fnUntraced(function*(options: SimDiscoveryOptions = {}) {
  const network = yield* SimNetwork
  const { addresses, localPeer } = yield* Transport
  const { announce } = yield* Discovery
  const members = membersOf(network)
  const machine = network.machine(localPeer)
  const self: Member = {
    peer: localPeer,
    at: "",
    answer: { id: localPeer, addresses: [] },
    machine,
    look: Effect.map(addresses, (addresses) => {
      self.at = machine.address
      self.answer = { id: localPeer, addresses }
    }),
    hears: (found) => announce(found, "mdns")
  }
  yield* self.look
  yield* Effect.acquireRelease(
    Effect.sync(() => members.add(self)),
    () => Effect.sync(() => members.delete(self))
  )

  // A node repeats the same answer every few seconds, so the answer is made anew only when the address has changed.
  const others = Effect.flatMap(network.delay, () => {
    const found = [...members].filter((member) => member !== self && network.reaches(localPeer, member.peer))
    const stale = [self, ...found].filter((member) => member.at !== member.machine.address)
    return stale.length === 0
      ? Effect.succeed(found)
      : Effect.as(Effect.forEach(stale, ({ look }) => look, { discard: true }), found)
  })
  const announces = Effect.flatMap(
    others,
    (others) => Effect.forEach(others, (other) => other.hears(self.answer), { discard: true })
  )
  const asks = Effect.flatMap(
    others,
    (others) => Effect.forEach(others, (other) => self.hears(other.answer), { discard: true })
  )
  yield* Effect.andThen(announces, Effect.repeat(asks, Schedule.spaced(options.interval ?? "3 seconds"))).pipe(
    Effect.forkScoped({ startImmediately: true })
  )
})

/** {@link make} with its own options. */
export const layerWith = (
  options: SimDiscoveryOptions
): Layer.Layer<never, never, SimNetwork | Transport | Discovery> => Layer.effectDiscard(make(options))

/** {@link make} with the defaults. */
export const layer: Layer.Layer<never, never, SimNetwork | Transport | Discovery> = layerWith({})

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

interface Member {
  readonly peer: PeerId
  readonly machine: SimMachine
  /** The machine's address when the answer was made. */
  at: string
  answer: PeerAddresses
  readonly look: Effect.Effect<void>
  readonly hears: (found: PeerAddresses) => Effect.Effect<void>
}

const networks = new WeakMap<SimNetwork["Service"], Set<Member>>()

function membersOf(network: SimNetwork["Service"]): Set<Member> {
  const found = networks.get(network) ?? new Set()
  networks.set(network, found)
  return found
}
