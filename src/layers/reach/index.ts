/**
 * How others reach this node: relays and its own addresses.
 */
export * as OwnAddresses from "./OwnAddresses.ts"
export * as RelayClient from "./RelayClient.ts"
export * as RelayReservations from "./RelayReservations.ts"
export * as RelayServer from "./RelayServer.ts"
