import { assert, describe, it } from "@effect/vitest"
import { Config, ConfigProvider, Duration, Effect, Layer, Logger } from "effect"
import { totalmem } from "node:os"
import { base58btc } from "multiformats/bases/base58"
import { CID } from "multiformats/cid"
import * as Digest from "multiformats/hashes/digest"
import * as Agent from "../../src/schema/Agent.ts"
import type { ConfigError } from "../../src/schema/NetworkError.ts"
import * as NetworkOptions from "../../src/schema/NetworkOptions.ts"
import type { ShortDuration } from "../../src/schema/OptionTable.ts"
import { NetworkConfig, type NetworkConfigInput } from "../../src/services/NetworkConfig.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

const bootstrap = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

const problemsOf = <A>(self: Effect.Effect<A, ConfigError>) => Effect.map(Effect.flip(self), (error) => error.problems)

describe("NetworkConfig", () => {
  it.effect("fills in the defaults of the Rust crate and its own", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual<unknown>(yield* NetworkConfig.resolve(), {
        listenPort: 0,
        listenAddresses: ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"],
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
        dht: "server",
        agentVersion: Agent.agentVersion,
        protocolVersion: Agent.protocolVersion,
        kadProtocol: "/codio/kad/1.0.0",
        kadReplicationFactor: 20,
        connectionIdleTimeout: Duration.minutes(5),
        rediscoveryCooldown: Duration.minutes(5),
        dialTimeout: Duration.seconds(10),
        stopTimeout: Duration.seconds(5),
        bootstrapPeers: [],
        dataDirectory: undefined,
        maxKnownPeers: 4096,
        maxBufferedBytes: NetworkOptions.bufferedBytes(process.constrainedMemory(), totalmem()),
        eventBuffer: 1024
      })
    }))

  it("lets 256 MiB wait in streams, and less where the machine or its container has less than 1 GiB", () => {
    const mebi = 1024 * 1024
    const { bufferedBytes } = NetworkOptions
    // Without a limit Node says 0, or a number above all memory.
    for (const granted of [0, 2 ** 64]) assert.strictEqual(bufferedBytes(granted, 16_384 * mebi), 256 * mebi)
    assert.strictEqual(bufferedBytes(1_024 * mebi, 16_384 * mebi), 256 * mebi)
    assert.strictEqual(bufferedBytes(512 * mebi, 16_384 * mebi), 128 * mebi)
    assert.strictEqual(bufferedBytes(0, 400 * mebi), 100 * mebi)
    assert.strictEqual(bufferedBytes(2 * mebi, 400 * mebi), mebi)
  })

  it.effect("derives the listen address from the port and the limits from maxPeers", () =>
    Effect.gen(function*() {
      const config = yield* NetworkConfig.resolve({ listenPort: 4001, maxPeers: 3 })
      assert.deepStrictEqual<unknown>(config.listenAddresses, ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"])
      assert.deepStrictEqual([config.minPeers, config.maxInboundPeers, config.maxPeersPerSubnet], [1, 3, 3])
    }))

  it.effect("refuses limits above maxPeers, and takes those up to it", () =>
    Effect.gen(function*() {
      for (const most of [0, 10]) {
        const within = yield* NetworkConfig.resolve({
          maxPeers: 10,
          maxInboundPeers: most,
          maxPeersPerSubnet: Math.max(1, most),
          minPeers: most
        })
        assert.deepStrictEqual([within.maxInboundPeers, within.minPeers], [most, most])
      }
      assert.deepStrictEqual(
        yield* problemsOf(
          NetworkConfig.resolve({ maxPeers: 10, maxInboundPeers: 11, maxPeersPerSubnet: 12, minPeers: 13 })
        ),
        [
          "maxInboundPeers: expected at most maxPeers, which is 10, got 11",
          "maxPeersPerSubnet: expected at most maxPeers, which is 10, got 12",
          "minPeers: expected at most maxPeers, which is 10, got 13"
        ]
      )
    }))

  it.effect("refuses options that contradict each other, with what was given and what is possible", () =>
    Effect.gen(function*() {
      const relayed = `/ip4/192.0.2.1/tcp/1/p2p/${SimNetwork.peerId("r")}/p2p-circuit/p2p/${SimNetwork.peerId("b")}`
      const listenAddresses = ["/ip4/127.0.0.1/tcp/5"]
      const kept = (count: number) =>
        Array.from({ length: count }, (_, index) => `/ip4/192.0.2.1/tcp/1/p2p/${SimNetwork.peerId(String(index))}`)
      const off = "has no effect while enableRelay is false; leave it out, or turn enableRelay on"
      const wrong: ReadonlyArray<readonly [NetworkConfigInput, string]> = [
        [
          { listenPort: 4, listenAddresses },
          "listenPort: 4 has no effect beside listenAddresses, which are [\"/ip4/127.0.0.1/tcp/5\"]; leave one of them out"
        ],
        [{ enableRelay: false, relayPeers: listenAddresses }, `relayPeers: ["/ip4/127.0.0.1/tcp/5"] ${off}`],
        [{ enableRelay: false, bootstrapPeers: [relayed] }, `bootstrapPeers: an address through a relay ${off}`],
        [{ enableRelay: false, listenAddresses: ["/p2p-circuit"] }, `listenAddresses: /p2p-circuit ${off}`],
        [
          { maxPeers: 2, bootstrapPeers: kept(2), relayPeers: kept(3) },
          "maxPeers: bootstrapPeers and relayPeers are 3 peers to be kept at once, and maxPeers is 2; give fewer, or raise maxPeers"
        ]
      ]
      for (const [input, problem] of wrong) {
        assert.deepStrictEqual(yield* problemsOf(NetworkConfig.resolve(input)), [problem])
      }
      yield* NetworkConfig.resolve({ listenPort: 5, listenAddresses })
      yield* NetworkConfig.resolve({ listenPort: 0, listenAddresses })
      // Several addresses of one peer are one peer.
      const ways = ["/ip4/192.0.2.9/tcp/1", "/ip4/192.0.2.8/tcp/1"].map((way) => `${way}/p2p/${SimNetwork.peerId("0")}`)
      yield* NetworkConfig.resolve({ maxPeers: 3, bootstrapPeers: [...kept(3), ...ways], relayPeers: kept(2) })
      yield* NetworkConfig.resolve({ relayPeers: kept(1), bootstrapPeers: [relayed] })
      // What has been resolved resolves again.
      const config = yield* NetworkConfig.resolve({ listenPort: 4001, maxPeers: 7 })
      assert.deepStrictEqual(yield* NetworkConfig.resolve(config), config)
    }))

  it.effect("takes durations in short, from 1 ms to 24 days", () =>
    Effect.gen(function*() {
      const millis: Record<ShortDuration, number> = {
        "10s": 10_000,
        "5m": 300_000,
        "250ms": 250,
        "1.5h": 5_400_000,
        "2d": 172_800_000,
        "1ms": 1,
        "24d": 2_073_600_000
      }
      for (const [text, expected] of Object.entries(millis)) {
        const given = text as ShortDuration
        assert.strictEqual(
          Duration.toMillis((yield* NetworkConfig.resolve({ dialTimeout: given })).dialTimeout),
          expected
        )
        const { dialTimeout } = yield* NetworkOptions.decodeEnvironment({ CODIO_DIAL_TIMEOUT: ` ${text} ` })
        assert.strictEqual(Duration.toMillis(dialTimeout!), expected)
        const file = yield* NetworkOptions.decode("x", { dialTimeout: text })
        assert.strictEqual(Duration.toMillis(file.dialTimeout!), expected)
      }
      for (const text of ["0s", "0.5ms", "25d", "5", "5 m", "m", "-1s", "1e3s", "1s1s", "Infinity"]) {
        assert.deepStrictEqual(yield* problemsOf(NetworkOptions.decode("x", { dialTimeout: text })), [
          `x: dialTimeout: expected a duration from 1 ms to 24 days, such as "10s", "5m" or "90 seconds", got "${text}"`
        ])
      }
      for (const input of [0, Number.NaN, Number.POSITIVE_INFINITY, Duration.infinity, Duration.days(25)]) {
        assert.strictEqual((yield* problemsOf(NetworkConfig.resolve({ dialTimeout: input }))).length, 1, String(input))
      }
    }))

  it.effect("refuses to announce what nobody can dial", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* problemsOf(NetworkConfig.resolve({
          announceAddresses: [
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/0.0.0.0/tcp/4001",
            "/ip6/0::/tcp/4001",
            "/dns4/a.b/tcp/4001"
          ]
        })),
        [
          "announceAddresses: \"/ip4/192.0.2.1/tcp/0\" has port 0, which nobody can dial: expected the port that others dial",
          "announceAddresses: \"/ip4/0.0.0.0/tcp/4001\" stands for all addresses of a machine: expected one that others can dial",
          "announceAddresses: \"/ip6/::/tcp/4001\" stands for all addresses of a machine: expected one that others can dial"
        ]
      )
    }))

  it.effect("reads addresses into their canonical form, whoever gives them", () =>
    Effect.gen(function*() {
      const id = SimNetwork.peerId("bob")
      const cid = CID.createV1(0x72, Digest.decode(base58btc.baseDecode(id))).toString()
      const text = `/dns4/Seed.example/tcp/4001/ipfs/${cid}/`
      const expected = [`/dns4/seed.example/tcp/4001/p2p/${id}`]
      const read = [
        yield* NetworkConfig.resolve({ bootstrapPeers: [text] }),
        yield* NetworkOptions.decode("x", { bootstrapPeers: [text] }),
        yield* NetworkOptions.decodeEnvironment({ CODIO_BOOTSTRAP_PEERS: `\n${text} ,` }),
        yield* NetworkOptions.decodeTexts({ bootstrapPeers: [`${text}\n`] }, (name) => name)
      ]
      for (const { bootstrapPeers } of read) assert.deepStrictEqual<unknown>(bootstrapPeers, expected)
      assert.deepStrictEqual(yield* problemsOf(NetworkConfig.resolve({ bootstrapPeers: [`/p2p/${id}`] })), [
        `bootstrapPeers: "/p2p/${id}" has no address before the peer id: expected text such as /ip4/192.0.2.1/tcp/4001/p2p/${id}`
      ])
    }))

  it.effect("takes effect's Config, and says which value is missing or wrong", () =>
    Effect.gen(function*() {
      const layer = NetworkConfig.layerConfig({
        maxPeers: Config.Int("PEERS"),
        dialTimeout: Config.String("DIAL").pipe(Config.withDefault("3s"), Config.map((text) => text as ShortDuration))
      })
      const under = (env: Record<string, string>) =>
        Effect.provide(
          NetworkConfig,
          Layer.provide(layer, ConfigProvider.layer(ConfigProvider.fromEnv({ env })))
        )
      const { dialTimeout, maxPeers } = yield* under({ PEERS: "7" })
      assert.deepStrictEqual([maxPeers, Duration.toMillis(dialTimeout)], [7, 3000])
      for (const [env, word] of [[{}, "PEERS"], [{ PEERS: "x" }, "PEERS"], [{ PEERS: "0" }, "maxPeers"]] as const) {
        const [problem, ...others] = yield* problemsOf(under(env))
        assert.include(problem, word)
        assert.notInclude(problem, "\n")
        assert.deepStrictEqual(others, [])
      }
    }))

  it.effect("takes the environment's variables of a prefix, and judges them", () =>
    Effect.gen(function*() {
      const warnings: Array<string> = []
      const under = (prefix: string | undefined, environment: Record<string, string>) =>
        Effect.acquireUseRelease(
          Effect.sync(() => Object.assign(process.env, environment)),
          () => Effect.provide(NetworkConfig, NetworkConfig.layerEnv(prefix)),
          () => Effect.sync(() => Object.keys(environment).forEach((name) => delete process.env[name]))
        ).pipe(
          Effect.provide(
            Logger.layer([Logger.make<unknown, void>(({ message }) => void warnings.push(String(message)))])
          )
        )
      for (const prefix of ["MY_APP", "MY_APP_"]) {
        const { maxPeers } = yield* under(prefix, { MY_APP_MAX_PEERS: "7", MY_APP_HOME: "x", CODIO_MAX_PEERS: "0" })
        assert.strictEqual(maxPeers, 7)
      }
      assert.strictEqual((yield* under(undefined, { CODIO_MAX_PEERS: "8" })).maxPeers, 8)
      assert.deepStrictEqual(warnings, [
        "MY_APP_HOME: unknown variable, which has no effect",
        "MY_APP_HOME: unknown variable, which has no effect"
      ])
      assert.deepStrictEqual(yield* problemsOf(under("MY_APP", { MY_APP_MAX_PEER: "7" })), [
        "MY_APP_MAX_PEER: unknown variable; did you mean MY_APP_MAX_PEERS?"
      ])
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
        "connectionIdleTimeout: expected a duration from 1 ms to 24 days, such as \"10s\", \"5m\" or \"90 seconds\", got 0",
        "dialTimeout: expected a duration from 1 ms to 24 days, such as \"10s\", \"5m\" or \"90 seconds\", got \"soon\"",
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
        "CODIO_DIAL_TIMEOUT: expected a duration from 1 ms to 24 days, such as \"10s\", \"5m\" or \"90 seconds\", got \"-1 seconds\"",
        "CODIO_ENABLE_MDNS: expected true or false, got \"yes\"",
        "CODIO_LISTEN_PORT: expected a port number from 0 to 65535, got \"abc\""
      ])
    }))

  it.effect("takes an unknown name within two edits of an option for a mistake, and warns of another", () =>
    Effect.gen(function*() {
      const warnings: Array<string> = []
      const warned = Logger.layer([Logger.make<unknown, void>(({ message }) => void warnings.push(String(message)))])
      const decode = (name: string) =>
        NetworkOptions.decodeText("codio.json", JSON.stringify({ [name]: 1 })).pipe(Effect.provide(warned))
      const decodeVariable = (name: string) =>
        NetworkOptions.decodeEnvironment({ [name]: "1" }).pipe(Effect.provide(warned))
      for (const name of ["listen-port", "listen_port", "ListenPort", "listenPrt", "listnPrt", "lissttenPort"]) {
        assert.deepStrictEqual(yield* problemsOf(decode(name)), [
          `codio.json: ${name}: unknown option; did you mean listenPort?`
        ])
      }
      for (const name of ["CODIO_LISTENPORT", "CODIO_LISTEN_PROT", "CODIO_LISTEN_POR"]) {
        assert.deepStrictEqual(yield* problemsOf(decodeVariable(name)), [
          `${name}: unknown variable; did you mean CODIO_LISTEN_PORT?`
        ])
      }
      assert.deepStrictEqual(warnings, [])
      for (const name of ["colour", "lstnPrt", "listenPortal3", "$schema", "bootstrap"]) yield* decode(name)
      for (const name of ["CODIO_HOME", "CODIO_LSTN_PRT", "CODIOX_LISTEN_PORT"]) yield* decodeVariable(name)
      assert.deepStrictEqual(warnings, [
        "codio.json: colour: unknown option, which has no effect",
        "codio.json: lstnPrt: unknown option, which has no effect",
        "codio.json: listenPortal3: unknown option, which has no effect; did you mean listenPort?",
        "codio.json: bootstrap: unknown option, which has no effect; did you mean bootstrapPeers?",
        "CODIO_HOME: unknown variable, which has no effect",
        "CODIO_LSTN_PRT: unknown variable, which has no effect"
      ])
      // A mistake and a wrong value are told together, and an empty variable counts as absent.
      assert.deepStrictEqual(
        yield* problemsOf(
          NetworkOptions.decodeEnvironment({ CODIO_MAX_PEERS: "x", CODIO_MIN_PEER: "1", CODIO_LISTEN_POR: "" })
        ),
        [
          "CODIO_MIN_PEER: unknown variable; did you mean CODIO_MIN_PEERS?",
          "CODIO_MAX_PEERS: expected a whole number from 1 to 10000, got \"x\""
        ]
      )
    }))

  it.effect("refuses names that every object inherits, and takes nothing from below them", () =>
    Effect.gen(function*() {
      for (const name of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
        for (const value of ["5", "{\"listenPort\":4001}"]) {
          const text = `{"${name}":${value}}`
          const file = yield* NetworkOptions.decodeText("codio.json", text)
          assert.deepStrictEqual(Object.keys(file), [])
          assert.strictEqual(file.listenPort, undefined)
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
