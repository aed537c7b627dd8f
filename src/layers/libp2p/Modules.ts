/**
 * Modules of libp2p, each a scoped resource of a running node. [libp2p]
 *
 * libp2p takes all modules in its constructor and does four things to each: it calls the factory with the node's
 * components, starts the module, registers its routing, and merges the peers that the module discovers into the peer
 * store. `attach` does the same at any time, and undoes it when the scope closes.
 */
import type { ComponentLogger, PeerInfo, PeerRouting, TypedEventTarget } from "@libp2p/interface"
import { NotFoundError, peerDiscoverySymbol, peerRoutingSymbol, start, stop } from "@libp2p/interface"
import { Effect } from "effect"
import { HostError } from "../../schema/NetworkError.ts"
import { type Components, withRegistrar } from "./wire/Components.ts"
import { toError, within } from "./Faults.ts"

/**
 * The modules of one node. The components must exist when the first module is attached. `routing` is for libp2p to ask.
 */
export const make = (components: () => Components, logger: ComponentLogger) => {
  const routers = new Set<PeerRouting>()

  const merge = (event: CustomEvent<PeerInfo>) => {
    const { id, multiaddrs } = event.detail
    if (id.equals(components().peerId)) return
    components().peerStore.merge(id, { multiaddrs }).catch((cause) => {
      logger.forComponent("codio:host").error("a discovered peer was not stored - %e", toError(cause))
    })
  }

  const detach = async ({ instance, registrations }: Attached<unknown>): Promise<void> => {
    if (hasRouting(instance)) routers.delete(instance[peerRoutingSymbol])
    try {
      await stopWithin(instance)
    } finally {
      if (hasDiscovery(instance)) instance[peerDiscoverySymbol].removeEventListener("peer", merge)
      await registrations.remove()
    }
  }

  const attach = <A>(module: string, factory: (components: Components) => A) =>
    Effect.acquireRelease(
      Effect.tryPromise({
        try: async () => {
          const registrations = registrationsOf(components())
          const attached: Attached<A> = { instance: factory(registrations.components), registrations }
          const { instance } = attached
          try {
            if (hasDiscovery(instance)) instance[peerDiscoverySymbol].addEventListener("peer", merge)
            await start(instance)
            if (hasRouting(instance)) routers.add(instance[peerRoutingSymbol])
          } catch (cause) {
            // The first error is the one to report.
            await detach(attached).catch(() => {})
            throw cause
          }
          return attached
        },
        catch: hostError(module)
      }),
      (attached) =>
        Effect.tryPromise({ try: () => detach(attached), catch: toError }).pipe(
          Effect.catch((cause) => Effect.logWarning(`${module} did not stop in order: ${cause.message}`))
        )
    ).pipe(Effect.map(({ instance }) => instance))

  return { attach, routing: delegate(routers) }
}

/** A module's failure as a program sees it. A `HostError` stays as it is. */
export function hostError(module: string) {
  return (thrown: unknown) => {
    if (thrown instanceof HostError) return thrown
    const cause = toError(thrown)
    return new HostError({ module, detail: cause.message, cause })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const moduleStopMillis = 2000

interface Attached<A> {
  readonly instance: A
  readonly registrations: ReturnType<typeof registrationsOf>
}

// The components for one module, and a way to undo what the module registers through them: kad-dht's `stop` leaves its
// handler registered.
function registrationsOf(components: Components) {
  const protocols = new Set<string>()
  const topologies = new Set<string>()
  const { registrar } = components
  return {
    components: withRegistrar(components, {
      handle: (protocol, handler, options) => {
        protocols.add(protocol)
        return registrar.handle(protocol, handler, options)
      },
      unhandle: (protocol, options) => {
        for (const one of Array.isArray(protocol) ? protocol : [protocol]) protocols.delete(one)
        return registrar.unhandle(protocol, options)
      },
      register: async (protocol, topology, options) => {
        const id = await registrar.register(protocol, topology, options)
        topologies.add(id)
        return id
      },
      unregister: (id) => {
        topologies.delete(id)
        return registrar.unregister(id)
      }
    }),
    remove: async () => {
      for (const id of topologies) registrar.unregister(id)
      for (const protocol of protocols) await registrar.unhandle(protocol)
    }
  }
}

interface HasRouting {
  readonly [peerRoutingSymbol]: PeerRouting
}

interface HasDiscovery {
  readonly [peerDiscoverySymbol]: TypedEventTarget<{ peer: CustomEvent<PeerInfo> }>
}

function hasRouting(instance: unknown): instance is HasRouting {
  return (instance as Partial<HasRouting> | undefined)?.[peerRoutingSymbol] !== undefined
}

function hasDiscovery(instance: unknown): instance is HasDiscovery {
  return typeof (instance as Partial<HasDiscovery> | undefined)?.[peerDiscoverySymbol]?.addEventListener === "function"
}

async function stopWithin(instance: unknown): Promise<void> {
  await within(moduleStopMillis, (signal) =>
    new Promise<void>((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason))
      stop(instance).then(resolve, reject)
    }))
}

// libp2p reads its list of routers once, so the list has this one, which asks the routers attached at the time.
function delegate(routers: ReadonlySet<PeerRouting>): PeerRouting {
  return {
    async findPeer(id, options) {
      for (const router of routers) {
        try {
          return await router.findPeer(id, options)
        } catch (cause) {
          if (options?.signal?.aborted === true) throw cause
        }
      }
      throw new NotFoundError("no attached module knows the peer")
    },
    async *getClosestPeers(key, options) {
      for (const router of routers) yield* router.getClosestPeers(key, options)
    }
  }
}
