import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import type { ConfigError } from "../../src/schema/NetworkError.ts"
import * as NetworkOptions from "../../src/schema/NetworkOptions.ts"
import { NetworkConfig } from "../../src/services/NetworkConfig.ts"

const bootstrap = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

const problemsOf = <A>(self: Effect.Effect<A, ConfigError>) => Effect.map(Effect.flip(self), (error) => error.problems)

describe("NetworkConfig", () => {
  it.effect("fills in the defaults of the Rust crate and its own", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual<unknown>(yield* NetworkConfig.resolve(), {
        listenPort: 0,
        listenAddresses: ["/ip4/0.0.0.0/tcp/0"],
        announceAddresses: [],
        maxPeers: 50,
        maxInboundPeers: 50,
        maxPeersPerSubnet: 50,
        minPeers: 13,
        maxPendingInbound: 64,
        inboundRate: 50,
        inboundBurst: 400,
        maxParallelDials: 16,
        enableMdns: true,
        enableRelay: true,
        relayPeers: [],
        kadProtocol: "/codio/kad/1.0.0",
        kadReplicationFactor: 20,
        connectionIdleTimeout: Duration.minutes(5),
        rediscoveryCooldown: Duration.minutes(5),
        dialTimeout: Duration.seconds(10),
        stopTimeout: Duration.seconds(5),
        bootstrapPeers: [],
        dataDirectory: undefined,
        maxKnownPeers: 4096,
        eventBuffer: 1024
      })
    }))

  it.effect("derives the listen address from the port and keeps minPeers within maxPeers", () =>
    Effect.gen(function*() {
      const config = yield* NetworkConfig.resolve({ listenPort: 4001, maxPeers: 3, minPeers: 10 })
      assert.deepStrictEqual<unknown>(config.listenAddresses, ["/ip4/0.0.0.0/tcp/4001"])
      assert.strictEqual(config.minPeers, 3)
    }))

  it.effect("keeps the limits within maxPeers", () =>
    Effect.gen(function*() {
      const within = yield* NetworkConfig.resolve({ maxPeers: 10, maxInboundPeers: 0, maxPeersPerSubnet: 2 })
      assert.deepStrictEqual([within.maxInboundPeers, within.maxPeersPerSubnet], [0, 2])
      const above = yield* NetworkConfig.resolve({ maxPeers: 10, maxInboundPeers: 11, maxPeersPerSubnet: 12 })
      assert.deepStrictEqual([above.maxInboundPeers, above.maxPeersPerSubnet], [10, 10])
    }))

  it.effect("takes durations as texts, as milliseconds and as Durations", () =>
    Effect.gen(function*() {
      const config = yield* NetworkConfig.resolve({
        connectionIdleTimeout: "90 seconds",
        dialTimeout: 1500,
        rediscoveryCooldown: Duration.hours(1)
      })
      assert.strictEqual(Duration.toMillis(config.connectionIdleTimeout), 90_000)
      assert.strictEqual(Duration.toMillis(config.dialTimeout), 1500)
      assert.strictEqual(Duration.toMillis(config.rediscoveryCooldown), 3_600_000)
    }))

  it.effect("builds options in the manner of the crate", () =>
    Effect.gen(function*() {
      const config = yield* NetworkConfig.resolve(
        NetworkConfig.make(4001, 100).pipe(
          NetworkConfig.withBootstrapPeer(bootstrap),
          NetworkConfig.withoutMdns,
          NetworkConfig.withKadReplicationFactor(30)
        )
      )
      assert.strictEqual(config.listenPort, 4001)
      assert.strictEqual(config.maxPeers, 100)
      assert.deepStrictEqual<unknown>(config.bootstrapPeers, [bootstrap])
      assert.isFalse(config.enableMdns)
      assert.strictEqual(config.kadReplicationFactor, 30)
    }))

  it.effect("names every wrong value given in code once, with what was given and what is expected", () =>
    Effect.gen(function*() {
      const problems = yield* problemsOf(NetworkConfig.resolve({
        listenPort: 65536,
        maxPeers: 1.5,
        dialTimeout: "soon" as never,
        connectionIdleTimeout: 0,
        bootstrapPeers: ["nonsense", "/ip4/192.0.2.1/tcp/1/p2p/12D3"],
        kadProtocol: "kad"
      }))
      assert.deepStrictEqual<unknown>([...problems].sort(), [
        "bootstrapPeers: \"/ip4/192.0.2.1/tcp/1/p2p/12D3\" has /p2p/ without a peer id",
        "bootstrapPeers: \"nonsense\" is not a multiaddr: expected text such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...",
        "connectionIdleTimeout: expected a duration above zero such as \"30 seconds\" or \"5 minutes\", got 0",
        "dialTimeout: expected a duration above zero such as \"30 seconds\" or \"5 minutes\", got \"soon\"",
        "kadProtocol: expected a protocol id: a slash, then 1 to 255 characters without spaces, got \"kad\"",
        "listenPort: expected a port number from 0 to 65535, got 65536",
        "maxPeers: expected a whole number from 1 to 10000, got 1.5"
      ])
    }))
})

describe("NetworkOptions", () => {
  it.effect("reads the environment: numbers, switches, durations, and lists with commas", () =>
    Effect.gen(function*() {
      const options = yield* NetworkOptions.decodeEnvironment({
        CODIO_LISTEN_PORT: "4001",
        CODIO_ENABLE_MDNS: "false",
        CODIO_DIAL_TIMEOUT: "3 seconds",
        CODIO_BOOTSTRAP_PEERS: `${bootstrap}, /ip4/192.0.2.2/tcp/4001`,
        CODIO_DATA_DIRECTORY: "",
        UNRELATED: "x"
      })
      assert.deepStrictEqual<unknown>(options, {
        listenPort: 4001,
        enableMdns: false,
        dialTimeout: Duration.seconds(3),
        bootstrapPeers: [bootstrap, "/ip4/192.0.2.2/tcp/4001"]
      })
    }))

  it.effect("says what is wrong in the environment, by variable", () =>
    Effect.gen(function*() {
      const problems = yield* problemsOf(
        NetworkOptions.decodeEnvironment({
          CODIO_LISTEN_PORT: "abc",
          CODIO_ENABLE_MDNS: "yes",
          CODIO_DIAL_TIMEOUT: "-1 seconds"
        })
      )
      assert.deepStrictEqual<unknown>([...problems].sort(), [
        "CODIO_DIAL_TIMEOUT: expected a duration above zero such as \"30 seconds\" or \"5 minutes\", got \"-1 seconds\"",
        "CODIO_ENABLE_MDNS: expected true or false, got \"yes\"",
        "CODIO_LISTEN_PORT: expected a port number from 0 to 65535, got \"abc\""
      ])
    }))

  it.effect("refuses unknown options of a file and suggests the one that was meant", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual<unknown>(
        yield* problemsOf(NetworkOptions.decodeText("codio.json", "{\"listen-port\":1,\"colour\":2}")),
        [
          "codio.json: listen-port: unknown option; did you mean listenPort?",
          "codio.json: colour: unknown option"
        ]
      )
    }))

  it.effect("refuses names that every object inherits, and takes nothing from below them", () =>
    Effect.gen(function*() {
      for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
        for (const value of ["5", "{\"listenPort\":4001}"]) {
          const text = `{"${name}":${value}}`
          assert.deepStrictEqual(yield* problemsOf(NetworkOptions.decodeText("codio.json", text)), [
            `codio.json: ${name}: unknown option`
          ])
          const refused = [`${name}: unknown option`]
          assert.deepStrictEqual(yield* problemsOf(NetworkConfig.resolve(JSON.parse(text))), refused)
          const built = NetworkConfig.withoutMdns(JSON.parse(text))
          assert.deepStrictEqual(yield* problemsOf(NetworkConfig.resolve(built)), refused)
          const texts = JSON.parse(`{"${name}":"5"}`)
          assert.deepStrictEqual(yield* problemsOf(NetworkOptions.decodeTexts(texts, (name) => name)), refused)
        }
      }
    }))

  it.effect("refuses a file that is no JSON, or no object, in one line", () =>
    Effect.gen(function*() {
      const [broken] = yield* problemsOf(NetworkOptions.decodeText("codio.json", "{\n \"a\": \n}"))
      assert.match(broken ?? "", /^codio\.json: not valid JSON: [^\n]+$/)
      assert.deepStrictEqual<unknown>(yield* problemsOf(NetworkOptions.decodeText("codio.json", "[1]")), [
        "codio.json: expected an object of options, got [1]"
      ])
      assert.deepStrictEqual<unknown>(
        yield* problemsOf(NetworkOptions.decodeText("codio.json", "{\"bootstrapPeers\":[5],\"relayPeers\":\"x\"}")),
        [
          "codio.json: relayPeers: expected a list of multiaddrs, got \"x\"",
          "codio.json: bootstrapPeers: expected a multiaddr, got 5"
        ]
      )
    }))
})
