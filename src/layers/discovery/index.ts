/**
 * Sources of peers: each is a Layer that feeds `Discovery` and provides nothing.
 */
export * as BootstrapDiscovery from "./BootstrapDiscovery.ts"
export * as MdnsDiscovery from "./MdnsDiscovery.ts"
export * as RememberedPeers from "./RememberedPeers.ts"
