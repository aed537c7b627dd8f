/**
 * The parts of a running libp2p node, as its modules are given them.
 */
import type { Libp2pOptions } from "libp2p"

/**
 * What libp2p gives to the factory of a module: the running node's parts. libp2p declares the type and does not export
 * it.
 */
export type Components = Parameters<NonNullable<Libp2pOptions["transports"]>[number]>[0]
