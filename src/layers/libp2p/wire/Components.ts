/**
 * The parts of a running libp2p node that its modules get.
 */
import type { Libp2pOptions } from "libp2p"

/**
 * What libp2p gives to a module's factory. libp2p declares the type and does not export it.
 */
export type Components = Parameters<NonNullable<Libp2pOptions["transports"]>[number]>[0]

/** The components with some functions of their registrar replaced. The registrar itself stays as it is. */
export const withRegistrar = (components: Components, replaced: Partial<Components["registrar"]>): Components => {
  const registrar = Object.assign(Object.create(components.registrar) as Components["registrar"], replaced)
  return new Proxy(components, {
    get: (target, name, receiver) => name === "registrar" ? registrar : Reflect.get(target, name, receiver) as unknown
  })
}
