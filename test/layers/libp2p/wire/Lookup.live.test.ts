/**
 * Where the sockets of TCP connect to, for addresses of the program's own and for those that another node told.
 */
import { assert, describe, it } from "@effect/vitest"
import type { MultiaddrConnection } from "@libp2p/interface"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { Libp2pLogger } from "../../../../src/layers/libp2p/Logger.ts"
import type { Components } from "../../../../src/layers/libp2p/wire/Components.ts"
import type { Resolve } from "../../../../src/layers/libp2p/wire/Lookup.ts"
import { gatheringTcp } from "../../../../src/layers/libp2p/wire/Tcp.ts"

/** A listener on 127.0.0.1 that counts the sockets that came. */
const listener = Effect.acquireRelease(
  Effect.promise(async () => {
    const seen = { came: 0 }
    const server = createServer((socket) => {
      seen.came++
      socket.on("error", () => {})
      socket.resume()
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    return { seen, server, port: (server.address() as AddressInfo).port }
  }),
  ({ server }) => Effect.sync(() => server.close())
)

/**
 * Dials an address of the listener, in which `PORT` stands for its port. Gives the error's name or "connected", the
 * number of sockets that came, the addresses that were judged and the names that were resolved.
 */
const dial = (
  address: string,
  options: { readonly judge?: (ip: string) => boolean; readonly names?: Record<string, ReadonlyArray<string>> }
) =>
  Effect.scoped(Effect.gen(function*() {
    const { port, seen } = yield* listener
    const judged: Array<string> = []
    const resolved: Array<string> = []
    const resolve: Resolve = async (name, family) => {
      resolved.push(`${name} ${family}`)
      return (options.names?.[name] ?? []).map((address) => ({ address, family: address.includes(":") ? 6 : 4 }))
    }
    const { judge } = options
    const judgeOf = judge === undefined ? undefined : (ip: string) => {
      judged.push(ip)
      return judge(ip)
    }
    const logger = yield* Libp2pLogger
    const transport = gatheringTcp(() => judgeOf, resolve)({ logger } as Components)
    const outcome = yield* Effect.promise((signal) =>
      Promise.resolve(transport.dial(multiaddr(address.replace("PORT", String(port))), {
        signal,
        upgrader: { upgradeOutbound: async (connection: MultiaddrConnection) => connection } as never
      })).then(async (connection) => {
        ;(connection as unknown as MultiaddrConnection).abort(new Error("the test is over"))
        return "connected"
      }, (error: Error) => error.name)
    )
    return { outcome, came: seen.came, judged, resolved }
  }))

const toldNothing = { judge: () => false, names: { "evil.example": ["127.0.0.1"] } }

describe("a socket for an address that another node told", () => {
  for (
    const [address, judged, resolved] of [
      ["/ip4/127.0.0.1/tcp/PORT", ["127.0.0.1"], []],
      ["/dns4/127.0.0.1/tcp/PORT", ["127.0.0.1"], []],
      ["/dns/127.0.0.1/tcp/PORT", ["127.0.0.1"], []],
      ["/ip6/::ffff:127.0.0.1/tcp/PORT", ["::ffff:7f00:1"], []],
      ["/dns6/::ffff:127.0.0.1/tcp/PORT", ["::ffff:127.0.0.1"], []],
      ["/dns4/evil.example/tcp/PORT", ["127.0.0.1"], ["evil.example 4"]],
      ["/dns/evil.example/tcp/PORT", ["127.0.0.1"], ["evil.example 0"]],
      // The system's lookup would give 127.0.0.1 for each of these.
      ["/dns4/localhost/tcp/PORT", [], ["localhost 4"]],
      ["/dns4/127.1/tcp/PORT", [], ["127.1 4"]],
      ["/dns4/2130706433/tcp/PORT", [], ["2130706433 4"]],
      ["/dns4/0x7f000001/tcp/PORT", [], ["0x7f000001 4"]],
      ["/dns4/127.000.000.001/tcp/PORT", [], ["127.000.000.001 4"]],
      ["/ip6zone/lo/ip6/::1/tcp/PORT", [], []]
    ] as const
  ) {
    it.live(`is not opened when it leads to an address that may not be dialled: ${address}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual<unknown>(yield* dial(address, toldNothing), {
          outcome: "DialDeniedError",
          came: 0,
          judged,
          resolved
        })
      }))
  }

  it.live("connects to those of a name's addresses that may be dialled, and to no other", () =>
    Effect.gen(function*() {
      const names = { "two.example": ["127.0.0.2", "::1", "127.0.0.1"] }
      const { came, judged, outcome } = yield* dial("/dns/two.example/tcp/PORT", {
        judge: (ip) => ip === "127.0.0.1",
        names
      })
      assert.deepStrictEqual([outcome, came, judged], ["connected", 1, ["127.0.0.2", "::1", "127.0.0.1"]])
    }))

  it.live("looks at no more than 16 addresses of a name", () =>
    Effect.gen(function*() {
      const many = Array.from({ length: 300 }, (_, index) => `44.0.${index >> 8}.${index & 255}`)
      const { judged } = yield* dial("/dns4/many.example/tcp/PORT", {
        judge: () => false,
        names: { "many.example": many }
      })
      assert.deepStrictEqual(judged, many.slice(0, 16))
    }))
})

describe("a socket for an address of the program's own", () => {
  for (
    const [address, outcome, came] of [
      ["/ip4/127.0.0.1/tcp/PORT", "connected", 1],
      ["/dns4/127.0.0.1/tcp/PORT", "connected", 1],
      ["/dns4/localhost/tcp/PORT", "connected", 1],
      ["/dns/localhost/tcp/PORT", "connected", 1],
      // Nobody listens at the IPv6 address, and another family is not tried.
      ["/dns6/localhost/tcp/PORT", "Error", 0]
    ] as const
  ) {
    it.live(`connects where the system's lookup leads, in the family of the address: ${address}`, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual<unknown>(yield* dial(address, {}), { outcome, came, judged: [], resolved: [] })
      }))
  }
})
