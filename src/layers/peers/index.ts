/**
 * Who is connected, who should be connected, and why.
 */
export * as PeerBook from "./PeerBook.ts"
export * as PingHealth from "./PingHealth.ts"
export * as ScopedPeerTable from "./ScopedPeerTable.ts"
export * as SupervisedConnectionManager from "./SupervisedConnectionManager.ts"
export * as TransportProtocols from "./TransportProtocols.ts"
