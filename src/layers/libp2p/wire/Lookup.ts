/**
 * How the name in an address becomes the IP addresses that a socket connects to.
 *
 * A name that the program gave is looked up as the system does it, `/etc/hosts` included. A name that another node told
 * is asked of DNS alone: `localhost` and the names of this machine's files mean nothing to a stranger, and the system's
 * lookup would hold one of few threads for as long as the stranger's name server is silent. Each address that DNS gives
 * is judged by itself, and those that may not be dialled are left out.
 */
import { lookup, type LookupAddress, type LookupOptions } from "node:dns"
import { Resolver } from "node:dns/promises"
import type { LookupFunction } from "node:net"

/** Resolves a name of the given family, or of both for 0. Rejects when there is no address. */
export type Resolve = (name: string, family: 0 | 4 | 6) => Promise<ReadonlyArray<LookupAddress>>

/** Whether a socket may connect to the IP address. */
export type Judge = (ip: string) => boolean

/** The family that the name in an address may resolve to: 4 for `dns4`, 6 for `dns6`, 0 for both. */
export const familyOf = (protocol: string): 0 | 4 | 6 => protocol === "dns4" ? 4 : protocol === "dns6" ? 6 : 0

/** Looks a name of the program's own up, in the given family. */
export const ownLookup = (family: 0 | 4 | 6): LookupFunction => (name, options, callback) =>
  lookup(name, { ...options, ...family === 0 ? {} : { family } } as LookupOptions & { all: true }, callback)

/** Looks a name up that another node told, and leaves out the addresses that may not be dialled. */
export const toldLookup =
  (family: 0 | 4 | 6, judge: Judge, resolve: Resolve = resolveByDns): LookupFunction => (name, options, callback) => {
    void resolve(name, family).then((found) => {
      const allowed = found.slice(0, resolvedMax).filter(({ address }) => judge(address))
      const [first] = allowed
      if (first === undefined) return callback(new NotDialled(name, found), options.all === true ? [] : "", 0)
      return options.all === true ? callback(null, allowed) : callback(null, first.address, first.family)
    }, (cause) => callback(cause, options.all === true ? [] : "", 0))
  }

/** A name leads only to addresses that this node does not dial for others. libp2p tells by the error's name. */
export class NotDialled extends Error {
  override readonly name = "DialDeniedError"

  constructor(name: string, found: ReadonlyArray<LookupAddress>) {
    super(`${name} leads to ${found[0]?.address ?? "no address"}, which this node does not dial for others`)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

/** Addresses of one name that are looked at. */
const resolvedMax = 16

const resolveByDns: Resolve = async (name, family) => {
  // Reads the system's name servers, which change with the network.
  const resolver = new Resolver({ timeout: 1000, tries: 2 })
  const [four, six] = await Promise.allSettled([
    family === 6 ? [] : resolver.resolve4(name),
    family === 4 ? [] : resolver.resolve6(name)
  ])
  const found = [
    ...four.status === "fulfilled" ? four.value.map((address) => ({ address, family: 4 as const })) : [],
    ...six.status === "fulfilled" ? six.value.map((address) => ({ address, family: 6 as const })) : []
  ]
  if (found.length > 0) return found
  throw four.status === "rejected" ? four.reason : six.status === "rejected" ? six.reason : new NotDialled(name, [])
}
