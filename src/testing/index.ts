/**
 * A simulated network for tests: whole nodes without sockets, in virtual time.
 */
import "../layers/requireNode.ts"

export * as RandomScenario from "./scenario/RandomScenario.ts"
export * as Scenario from "./scenario/Scenario.ts"
export * as SimClock from "./network/SimClock.ts"
export * as SimDht from "./ports/SimDht.ts"
export * as SimDiscovery from "./ports/SimDiscovery.ts"
export * as SimDisk from "./network/SimDisk.ts"
export * as SimKad from "./ports/SimKad.ts"
export {
  type SimLinkOptions,
  type SimMachine,
  SimNetwork,
  type SimNetworkOptions,
  type SimNode
} from "./network/SimNetwork.ts"
export * as SimNetworkMonitor from "./ports/SimNetworkMonitor.ts"
export * as SimTransport from "./ports/SimTransport.ts"
export * as Simulation from "./scenario/Simulation.ts"
export { Invariant, SimulationFailed } from "./scenario/SimulationFailed.ts"
export * as TestNetwork from "./TestNetwork.ts"
