import { wishesMutants } from "./wishes.ts"
import { slotsMutants } from "./slots.ts"
import { healthMutants } from "./health.ts"
import { cliMutants } from "./cli.ts"
import { codioMutants } from "./codio.ts"
import { dhtMutants } from "./dht.ts"
import { discoveryMutants } from "./discovery.ts"
import { layersMutants } from "./layers.ts"
import { libp2pMutants } from "./libp2p.ts"
import { machineMutants } from "./machine.ts"
import { networkMutants } from "./network.ts"
import { peersMutants } from "./peers.ts"
import { reachMutants } from "./reach.ts"
import { schemaMutants } from "./schema.ts"
import { servicesMutants } from "./services.ts"
import { testingMutants } from "./testing.ts"
import type { Mutant } from "./Mutant.ts"

/** All faults, by the room that they are in. */
export const mutants: ReadonlyArray<Mutant> = [
  ...peersMutants,
  ...wishesMutants,
  ...slotsMutants,
  ...healthMutants,
  ...layersMutants,
  ...libp2pMutants,
  ...dhtMutants,
  ...codioMutants,
  ...machineMutants,
  ...discoveryMutants,
  ...reachMutants,
  ...schemaMutants,
  ...servicesMutants,
  ...networkMutants,
  ...cliMutants,
  ...testingMutants
]
