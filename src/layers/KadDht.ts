/**
 * The DHT on libp2p's Kademlia. [libp2p]
 */
export { layer, make } from "./StockKadDht.ts"
