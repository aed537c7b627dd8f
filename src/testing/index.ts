/**
 * A simulated network for tests: whole nodes without sockets, in virtual time.
 */
export * as DhtModel from "./DhtModel.ts"
export * as RandomScenario from "./RandomScenario.ts"
export * as Scenario from "./Scenario.ts"
export * as SimClock from "./SimClock.ts"
export * as SimDht from "./SimDht.ts"
export * as SimDiscovery from "./SimDiscovery.ts"
export * as SimDisk from "./SimDisk.ts"
export * as SimKad from "./SimKad.ts"
export { type SimLinkOptions, type SimMachine, SimNetwork, type SimNetworkOptions, type SimNode } from "./SimNetwork.ts"
export * as SimNetworkMonitor from "./SimNetworkMonitor.ts"
export * as SimTransport from "./SimTransport.ts"
export * as Simulation from "./Simulation.ts"
export { Invariant, SimulationFailed } from "./SimulationFailed.ts"
export * as TestNetwork from "./TestNetwork.ts"
