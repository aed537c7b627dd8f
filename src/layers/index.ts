/**
 * The implementations of the services, one namespace for each: `KadDht.layer`. `Network.layer` composes them; a program that wants another
 * composition takes them from here.
 */
export * as BootstrapDiscovery from "./BootstrapDiscovery.ts"
export * as CodioProtocol from "./CodioProtocol.ts"
export * as DataDirectory from "./DataDirectory.ts"
export * as FileIdentity from "./FileIdentity.ts"
export * as KadDht from "./KadDht.ts"
export * as KeyValuePeerStore from "./KeyValuePeerStore.ts"
export * as Libp2pHost from "./Libp2pHost.ts"
export * as Libp2pLogger from "./Libp2pLogger.ts"
export * as Libp2pTransport from "./Libp2pTransport.ts"
export * as MdnsDiscovery from "./MdnsDiscovery.ts"
export * as NodeNetworkMonitor from "./NodeNetworkMonitor.ts"
export * as PingHealth from "./PingHealth.ts"
export * as RelayClient from "./RelayClient.ts"
export * as RelayReservations from "./RelayReservations.ts"
export * as RelayServer from "./RelayServer.ts"
export * as RememberedPeers from "./RememberedPeers.ts"
export * as ScopedPeerTable from "./ScopedPeerTable.ts"
export * as SupervisedConnectionManager from "./SupervisedConnectionManager.ts"
export * as TcpListener from "./TcpListener.ts"
export * as TransportProtocols from "./TransportProtocols.ts"
