import { assert, describe, it } from "@effect/vitest"
import type { MultiaddrResolveOptions } from "@libp2p/interface"
import { type Multiaddr, multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { makeDnsaddr } from "../../../src/layers/libp2p/Dnsaddr.ts"

/** Resolves in a zone; gives the addresses and the number of questions. */
const resolve = (start: string, zone: (name: string) => ReadonlyArray<string>) =>
  Effect.promise(async () => {
    let questions = 0
    const canResolve = (address: Multiaddr) => address.toString().startsWith("/dnsaddr/")
    const resolver = makeDnsaddr({
      canResolve,
      resolve: async (address) => {
        questions++
        return zone(address.toString()).map((text) => multiaddr(text))
      }
    })
    assert.isTrue(resolver.canResolve(multiaddr(start)))
    const found = await resolver.resolve(multiaddr(start), {} as MultiaddrResolveOptions)
    return { found: found.map(String), questions }
  })

describe("a /dnsaddr", () => {
  it.effect("resolves to the addresses that its records name, also through further names", () =>
    Effect.gen(function*() {
      const zone: Record<string, ReadonlyArray<string>> = {
        "/dnsaddr/a.example": ["/dnsaddr/b.example", "/ip4/44.0.0.1/tcp/1"],
        "/dnsaddr/b.example": ["/ip4/44.0.0.2/tcp/2", "/dns4/c.example/tcp/3"]
      }
      assert.deepStrictEqual(yield* resolve("/dnsaddr/a.example", (name) => zone[name] ?? []), {
        found: ["/ip4/44.0.0.1/tcp/1", "/ip4/44.0.0.2/tcp/2", "/dns4/c.example/tcp/3"],
        questions: 2
      })
    }))

  it.effect("costs at most 16 questions, whatever its records name", () =>
    Effect.gen(function*() {
      const tenMore = Array.from({ length: 10 }, (_, index) => `/dnsaddr/${index}.example`)
      assert.deepStrictEqual(yield* resolve("/dnsaddr/loop.example", () => ["/dnsaddr/loop.example"]), {
        found: [],
        questions: 16
      })
      assert.strictEqual((yield* resolve("/dnsaddr/wide.example", () => tenMore)).questions, 16)
    }))

  it.effect("gives at most 32 addresses", () =>
    Effect.gen(function*() {
      const many = Array.from({ length: 100 }, (_, index) => `/ip4/44.0.0.${index}/tcp/1`)
      const { found } = yield* resolve("/dnsaddr/many.example", () => many)
      assert.deepStrictEqual(found, many.slice(0, 32))
    }))
})
