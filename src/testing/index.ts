/**
 * A simulated network for tests: whole nodes without sockets, in virtual time.
 */
export * as SimDht from "./SimDht.ts"
export * as SimDiscovery from "./SimDiscovery.ts"
export { SimNetwork, type SimNetworkOptions, type SimNode } from "./SimNetwork.ts"
export * as SimTransport from "./SimTransport.ts"
export * as TestNetwork from "./TestNetwork.ts"
