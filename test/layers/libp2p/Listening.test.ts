import { assert, describe, it } from "@effect/vitest"
import { multiaddr } from "@multiformats/multiaddr"
import { Effect } from "effect"
import { listenAll, type Listening } from "../../../src/layers/libp2p/Listening.ts"
import type { Multiaddr } from "../../../src/schema/Peer.ts"

/** A machine with these interfaces, on which some addresses cannot be listened on, for the reasons given. */
const machine = (interfaces: ReadonlyArray<string>, problems: Readonly<Record<string, string>> = {}) => {
  const listened: Array<string> = []
  const listeners: Array<{ readonly getAddrs: () => Array<ReturnType<typeof multiaddr>> }> = []
  const manager: Listening = {
    listen: async (addresses) => {
      for (const address of addresses.map(String)) {
        const problem = problems[address]
        if (problem !== undefined) throw new Error(`Some configured addresses failed\n  ${address}: ${problem}`)
        listened.push(address)
        const [, family, host, , port] = address.split("/")
        const own = host === "0.0.0.0" || host === "::" ? interfaces.filter((one) => one.startsWith(`/${family}/`)) : [
          `/${family}/${host}`
        ]
        listeners.push({ getAddrs: () => own.map((one) => multiaddr(`${one}/tcp/${port === "0" ? 4999 : port}`)) })
      }
    },
    getListeners: () => listeners
  }
  const run = (...addresses: ReadonlyArray<string>) =>
    Effect.promise(() => listenAll(manager, addresses as ReadonlyArray<Multiaddr>))
  return { listened, run }
}

const usual = ["/ip4/127.0.0.1", "/ip4/192.0.2.7", "/ip6/::1", "/ip6/2001:db8::7"]
const any = ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"] as const

describe("listening on both families", () => {
  it.effect("takes for IPv6 the port that IPv4 was given, after all other addresses", () =>
    Effect.gen(function*() {
      const { listened, run } = machine(usual)
      assert.deepStrictEqual(yield* run(...any, "/ip4/127.0.0.1/tcp/4001"), [])
      assert.deepStrictEqual(listened, ["/ip4/127.0.0.1/tcp/4001", "/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/4999"])
    }))

  it.effect("takes another port for IPv6 where that is taken, and says so of a port that was asked for", () =>
    Effect.gen(function*() {
      const free = machine(usual, { "/ip6/::/tcp/4999": "Error: listen EADDRINUSE: address already in use :::4999" })
      assert.deepStrictEqual(yield* free.run(...any), [])
      assert.deepStrictEqual(free.listened, ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"])
      const fixed = machine(usual, { "/ip6/::/tcp/4001": "Error: listen EADDRINUSE: address already in use :::4001" })
      assert.deepStrictEqual(yield* fixed.run("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"), [
        "port 4001 of IPv6 is in use by another program: this node listens there on another port"
      ])
      assert.deepStrictEqual(fixed.listened, ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/0"])
    }))

  it.effect("is content with IPv4 on a machine without IPv6, and fails where IPv4 cannot be had", () =>
    Effect.gen(function*() {
      const no6 = "Error: listen EAFNOSUPPORT: address family not supported :::4999"
      const without = machine(["/ip4/127.0.0.1", "/ip4/192.0.2.7"], { "/ip6/::/tcp/4999": no6, "/ip6/::/tcp/0": no6 })
      assert.deepStrictEqual(yield* without.run(...any), [])
      assert.deepStrictEqual(without.listened, ["/ip4/0.0.0.0/tcp/0"])
      const taken = machine(usual, { "/ip4/0.0.0.0/tcp/4001": "Error: listen EADDRINUSE" })
      const failed = yield* Effect.exit(taken.run("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"))
      assert.strictEqual(failed._tag, "Failure")
      // An IPv6 address without its companion is an address like others.
      const alone = yield* Effect.exit(machine(usual, { "/ip6/::/tcp/1": no6 }).run("/ip6/::/tcp/1"))
      assert.strictEqual(alone._tag, "Failure")
    }))

  it.effect("says that only loopback is left, where all interfaces were asked for", () =>
    Effect.gen(function*() {
      const loopback = ["/ip4/127.0.0.1", "/ip6/::1"]
      const note = "this machine has no network but loopback: nobody outside it can reach this node"
      assert.deepStrictEqual(yield* machine(loopback).run(...any), [note])
      assert.deepStrictEqual(yield* machine(loopback).run("/ip4/127.0.0.1/tcp/0"), [])
    }))
})
