/**
 * Where peers come from: the local network, the memory of the last run, and the bootstrap peers.
 */
export * as BootstrapDiscovery from "./BootstrapDiscovery.ts"
export * as MdnsDiscovery from "./MdnsDiscovery.ts"
export * as RememberedPeers from "./RememberedPeers.ts"
