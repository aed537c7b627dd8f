/**
 * The parts of a running libp2p node that its modules get.
 */
import type { Libp2pOptions } from "libp2p"

/**
 * What libp2p gives to a module's factory. libp2p declares the type and does not export it.
 */
export type Components = Parameters<NonNullable<Libp2pOptions["transports"]>[number]>[0]
