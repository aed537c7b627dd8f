/**
 * What a node has of its machine: a directory, a key, network interfaces, and the end of its process.
 */
export * as BoundedShutdown from "./BoundedShutdown.ts"
export * as DataDirectory from "./DataDirectory.ts"
export * as FileIdentity from "./FileIdentity.ts"
export * as KeyValuePeerStore from "./KeyValuePeerStore.ts"
export * as NodeNetworkMonitor from "./NodeNetworkMonitor.ts"
export * as SeededIdentity from "./SeededIdentity.ts"
