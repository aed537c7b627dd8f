import type { Mutant } from "./Mutant.ts"

const reservations = "src/layers/reach/RelayReservations.ts"
const relaySpecs = ["test/live/relay.live.test.ts"] as const

export const reachMutants: ReadonlyArray<Mutant> = [
  {
    name: "a relay is asked anew without a wait while the policy throws",
    file: reservations,
    text: "Supervised.lasting(loop, Effect.scoped(serve(peer, configured)))",
    replacement: "Effect.scoped(serve(peer, configured))",
    specs: relaySpecs
  },
  {
    name: "a policy that throws ends a reservation that is held",
    file: reservations,
    text: "Effect.suspend(() => Effect.repeat(renewal, Schedule.spaced(policy.renew)))",
    replacement: "Effect.repeat(renewal, Schedule.spaced(policy.renew))",
    specs: relaySpecs
  }
]
