/**
 * Resolves `/dnsaddr/<name>`, whose TXT records name addresses, some of them `/dnsaddr` again. [libp2p]
 *
 * Whoever holds the name decides how many questions an answer leads to, and libp2p itself would follow 32 levels of any
 * width. So the questions and the addresses of one resolution are few.
 */
import type { MultiaddrResolver } from "@libp2p/interface"
import type { Multiaddr as Libp2pMultiaddr } from "@multiformats/multiaddr"
import { dnsaddrResolver } from "libp2p"

/** Resolves to addresses that are no `/dnsaddr`, 32 at most, with 16 questions at most. */
export const makeDnsaddr = (one: Pick<MultiaddrResolver, "canResolve" | "resolve">): MultiaddrResolver => ({
  canResolve: (address) => one.canResolve(address),
  resolve: async (address, options) => {
    const found: Array<Libp2pMultiaddr> = []
    const open = [address]
    for (let questions = 0; questions < questionsMax; questions++) {
      const next = open.shift()
      if (next === undefined || found.length >= addressesMax) break
      for (const resolved of await one.resolve(next, options)) {
        if (one.canResolve(resolved)) open.push(resolved)
        else found.push(resolved)
      }
    }
    return found.slice(0, addressesMax)
  }
})

/** {@link makeDnsaddr} over libp2p's own resolver. */
export const boundedDnsaddr = makeDnsaddr(dnsaddrResolver)

// ---------------------------------------------------------------------------------------------------------------------
// internal
// ---------------------------------------------------------------------------------------------------------------------

const questionsMax = 16
const addressesMax = 32
