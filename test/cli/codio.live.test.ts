import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Deferred, Duration, Effect, Exit, Fiber, FileSystem, Layer, PubSub, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"
import { run } from "../../src/cli/codio.ts"
import { Environment, fileSchema, type ProgramOptions, programOptions } from "../../src/cli/options.ts"
import { Node, Reader, StopLimit } from "../../src/cli/start.ts"
import { Network } from "../../src/Network.ts"
import { HostError, NetworkStartError } from "../../src/schema/NetworkError.ts"
import {
  DialFailed,
  type NetworkEvent,
  PeerConnected,
  PeerDiscovered,
  PeerDisconnected,
  PeerIdentified,
  PeerPathChanged
} from "../../src/schema/NetworkEvent.ts"
import { options } from "../../src/schema/NetworkOptions.ts"
import { type AnyOption, flagOf } from "../../src/schema/OptionTable.ts"
import { type Multiaddr, type PeerId, PeerInfo } from "../../src/schema/Peer.ts"

const local = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp" as PeerId
const remote = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN" as PeerId
const address = "/ip4/192.0.2.1/tcp/4001" as Multiaddr

const info = new PeerInfo({
  id: remote,
  addresses: [address],
  direction: "outbound",
  path: { _tag: "Direct", holePunched: false },
  interest: "kept",
  connectedAt: DateTime.makeUnsafe(0),
  connectionDuration: Duration.zero,
  idleDuration: Duration.zero,
  protocolVersion: "",
  agentVersion: "",
  protocols: [],
  listenAddresses: []
})

/** A node without a network: what it was told, and the events it shall tell. */
const fake = Effect.gen(function*() {
  const told: Array<ProgramOptions> = []
  const events = yield* PubSub.unbounded<NetworkEvent>()
  const up = yield* Deferred.make<void>()
  let peers: ReadonlyArray<PeerInfo> = []
  let releases = 0
  const network: Partial<Network["Service"]> = {
    localPeer: local,
    addresses: Effect.succeed([`/ip4/127.0.0.1/tcp/4001/p2p/${local}` as Multiaddr]),
    // By then the program must have subscribed: what is told from here on is printed.
    peers: Effect.map(Deferred.succeed(up, undefined), () => peers),
    events: Stream.fromPubSub(events)
  }
  const node = (options: ProgramOptions) =>
    Layer.effect(
      Network,
      Effect.as(
        Effect.acquireRelease(Effect.sync(() => told.push(options)), () => Effect.sync(() => releases++)),
        network as Network["Service"]
      )
    )
  return {
    told,
    node,
    up: Deferred.await(up),
    tell: (...news: ReadonlyArray<NetworkEvent>) => PubSub.publishAll(events, news),
    setPeers: (now: ReadonlyArray<PeerInfo>) => {
      peers = now
    },
    released: () => releases
  }
})

/** Runs the command until its node is up, and gives what the node was told. */
const optionsOf = (args: ReadonlyArray<string>, environment: Record<string, string> = {}) =>
  Effect.gen(function*() {
    const { node, told, up } = yield* fake
    const fiber = yield* run(["start", ...args]).pipe(
      Effect.provideService(Node, node),
      Effect.provideService(Environment, environment),
      Effect.forkChild
    )
    yield* Effect.raceFirst(up, Fiber.join(fiber))
    yield* Fiber.interrupt(fiber)
    return told[0]!
  })

/** Runs a command that fails, and gives what it said. */
const failureOf = (args: ReadonlyArray<string>, environment: Record<string, string> = {}) =>
  Effect.gen(function*() {
    const { node, told, up } = yield* fake
    const command = run(args).pipe(Effect.provideService(Node, node), Effect.provideService(Environment, environment))
    // A command that begins to run a node would not end.
    const exit = yield* Effect.exit(Effect.raceFirst(up, command))
    assert.isTrue(Exit.isFailure(exit), `${args.join(" ")} runs a node`)
    assert.strictEqual(told.length, 0)
    assert.deepStrictEqual(yield* TestConsole.logLines, [])
    return yield* TestConsole.errorLines
  }).pipe(Effect.provide(TestConsole.layer, { local: true }))

const withFile = <A, E, R>(content: string, use: (path: string) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* fs.makeTempFileScoped({ prefix: "codio-", suffix: ".json" })
    yield* fs.writeFileString(path, content)
    return yield* use(path)
  }))

/** Waits until the program has printed a line with the word. */
const printed = Effect.fnUntraced(function*(word: string) {
  for (let turn = 0; turn < 10_000; turn++) {
    if ((yield* TestConsole.logLines).some((line) => String(line).includes(word))) return
    yield* Effect.yieldNow
  }
  assert.fail(`no line with "${word}"`)
})

const linesOf = (args: ReadonlyArray<string>, drive: (node: Effect.Success<typeof fake>) => Effect.Effect<unknown>) =>
  Effect.gen(function*() {
    const node = yield* fake
    const closed = yield* Deferred.make<void>()
    const fiber = yield* run(["start", ...args]).pipe(
      Effect.provideService(Node, node.node),
      Effect.provideService(Environment, {}),
      Effect.provideService(Reader, { gone: Deferred.await(closed), ready: Effect.void }),
      Effect.forkChild
    )
    yield* node.up
    yield* drive(node)
    yield* printed("disconnected")
    yield* TestClock.adjust("1 millis")
    yield* Deferred.succeed(closed, undefined)
    yield* Fiber.join(fiber)
    assert.strictEqual(node.released(), 1)
    return (yield* TestConsole.logLines).map(String)
  }).pipe(Effect.provide(TestConsole.layer, { local: true }))

describe("codio start", () => {
  it.effect("takes an option from the flag, then the environment, then the file", () =>
    withFile(
      JSON.stringify({ listenPort: 1, maxPeers: 1, minPeers: 1, log: "error", json: false, relayServer: true }),
      (path) =>
        Effect.gen(function*() {
          const options = yield* optionsOf(["--listen-port", "3", "--config", path, "--json"], {
            CODIO_LISTEN_PORT: "2",
            CODIO_MAX_PEERS: "2",
            CODIO_LOG: "dht=debug"
          })
          assert.deepStrictEqual<unknown>(options.network, { listenPort: 3, maxPeers: 2, minPeers: 1 })
          assert.isTrue(options.json)
          assert.isTrue(options.relayServer)
          assert.deepStrictEqual<unknown>(options.log, { fallback: "Info", components: new Map([["dht", "Debug"]]) })
          const named = yield* optionsOf([], { CODIO_CONFIG: path })
          assert.strictEqual(named.log.fallback, "Error")
          assert.strictEqual(named.network.listenPort, 1)
        })
    ).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("takes a file that names its schema, and the schema has exactly what a file may have", () =>
    withFile(
      JSON.stringify({ $schema: "./options.schema.json", listenPort: 1, relayServer: true }),
      (path) =>
        Effect.gen(function*() {
          const { network, relayServer } = yield* optionsOf(["--config", path])
          assert.deepStrictEqual<unknown>({ network, relayServer }, { network: { listenPort: 1 }, relayServer: true })
          const { additionalProperties, properties } = fileSchema()
          assert.isFalse(additionalProperties)
          const { config: _, ...ofFile } = programOptions
          assert.sameMembers(Object.keys(properties as object), ["$schema", ...Object.keys({ ...options, ...ofFile })])
        })
    ).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("takes nothing by a name that every object inherits in the file", () =>
    Effect.gen(function*() {
      for (const name of ["__proto__", "constructor", "toString"]) {
        for (const value of ["5", "{\"listenAddresses\":[\"/ip4/127.0.0.1/tcp/0\"],\"relayServer\":true}"]) {
          yield* withFile(`{"${name}":${value}}`, (path) =>
            Effect.gen(function*() {
              const { network, relayServer, warnings } = yield* optionsOf(["--config", path])
              assert.deepStrictEqual<unknown>({ network, relayServer }, { network: {}, relayServer: false })
              assert.deepStrictEqual(warnings, [`${path}: ${name}: unknown option, which has no effect`])
            }))
        }
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("reads every flag", () =>
    Effect.gen(function*() {
      const { json, network, relayServer } = yield* optionsOf([
        ...[
          "--listen-port",
          "0",
          "--listen-address",
          "/ip4/127.0.0.1/tcp/0",
          "--announce-address",
          address,
          "--max-peers=10"
        ],
        ...["--max-inbound-peers", "8", "--max-peers-per-subnet", "7", "--inbound-rate", "30", "--inbound-burst", "90"],
        ...["--min-peers", "2", "--max-pending-inbound", "3", "--max-parallel-dials", "4", "--no-mdns", "--relay"],
        ...[
          "--relay-peer",
          `${address}/p2p/${remote}`,
          "--kad-protocol",
          "/my/kad/1.0.0",
          "--kad-replication-factor",
          "5"
        ],
        ...[
          "--connection-idle-timeout",
          "1 minute",
          "--rediscovery-cooldown",
          "2 minutes",
          "--dial-timeout",
          "3 seconds",
          "--stop-timeout",
          "4 seconds"
        ],
        ...["--bootstrap-peer", address, "--bootstrap-peer", "/ip4/192.0.2.2/tcp/1", "--data-directory", "data"],
        ...["--event-buffer", "6", "--relay-server", "--no-json"]
      ])
      assert.deepStrictEqual<unknown>(network, {
        listenPort: 0,
        listenAddresses: ["/ip4/127.0.0.1/tcp/0"],
        announceAddresses: [address],
        maxPeers: 10,
        maxInboundPeers: 8,
        maxPeersPerSubnet: 7,
        minPeers: 2,
        maxPendingInbound: 3,
        inboundRate: 30,
        inboundBurst: 90,
        maxParallelDials: 4,
        enableMdns: false,
        enableRelay: true,
        relayPeers: [`${address}/p2p/${remote}`],
        kadProtocol: "/my/kad/1.0.0",
        kadReplicationFactor: 5,
        connectionIdleTimeout: Duration.minutes(1),
        rediscoveryCooldown: Duration.minutes(2),
        dialTimeout: Duration.seconds(3),
        stopTimeout: Duration.seconds(4),
        bootstrapPeers: [address, "/ip4/192.0.2.2/tcp/1"],
        dataDirectory: "data",
        eventBuffer: 6
      })
      assert.isTrue(relayServer)
      assert.isFalse(json)
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("shows every option in its help, with its default", () =>
    Effect.gen(function*() {
      yield* run(["start", "--help"])
      const help = (yield* TestConsole.logLines).map(String).join("\n")
      for (const [name, entry] of Object.entries<AnyOption>({ ...options, ...programOptions })) {
        assert.include(help, `${flagOf(name, entry)} ${entry.flag === "switch" ? "" : entry.metavar}`)
        assert.include(help, entry.description)
      }
      assert.match(help, /--min-peers number .*; default a quarter of --max-peers\n/)
      assert.match(help, /--dial-timeout duration .*; default "10 seconds"\n/)
      assert.match(help, /--stop-timeout duration .*; default "1500 millis"\n/)
      assert.match(help, /--bootstrap-peer multiaddr .*; may be repeated\n/)
      assert.match(help, /--mdns .*; default on, --no-mdns turns it off\n/)
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("tells whoever ends the process how long the node may take to stop, where the options say so", () =>
    Effect.gen(function*() {
      const limits: Array<Duration.Duration> = []
      const recorded = Effect.provideService(StopLimit, (limit) => Effect.sync(() => limits.push(limit)))
      yield* recorded(optionsOf([]))
      assert.deepStrictEqual(limits, [])
      yield* recorded(optionsOf(["--stop-timeout", "4 seconds"]))
      yield* recorded(optionsOf([], { CODIO_STOP_TIMEOUT: "3 seconds" }))
      assert.deepStrictEqual(limits.map((limit) => Duration.toSeconds(limit)), [4, 3])
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("says in one line what is wrong with a flag, a variable or the file", () =>
    withFile("{\"listenPort\":\"x\",\"colour\":1,\"json\":3}", (path) =>
      Effect.gen(function*() {
        const start = "codio: cannot start: invalid options: "
        const expectations: ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>, string]> = [
          [
            ["start", "--listen-port", "abc"],
            {},
            `${start}--listen-port: expected a port number from 0 to 65535, got "abc"`
          ],
          [
            ["start", "--listen-port=-1"],
            {},
            `${start}--listen-port: expected a port number from 0 to 65535, got "-1"`
          ],
          [
            ["start"],
            { CODIO_LISTEN_PORT: "70000" },
            `${start}CODIO_LISTEN_PORT: expected a port number from 0 to 65535, got "70000"`
          ],
          [["start"], { CODIO_RELAY_SERVER: "yes" }, `${start}CODIO_RELAY_SERVER: expected true or false, got "yes"`],
          [
            ["start", "--bootstrap-peer", "nowhere"],
            {},
            `${start}--bootstrap-peer: "nowhere" is not a multiaddr: expected text such as /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW...`
          ],
          [
            ["start", "--config", "/nowhere/codio.json"],
            {},
            `${start}/nowhere/codio.json: cannot be read: ENOENT: no such file or directory, open '/nowhere/codio.json'`
          ],
          [["start"], { CODIO_CONFIG: path }, `${start}${path}: json: expected true or false, got 3`],
          [
            ["start"],
            { CODIO_MAX_PEER: "3", CODIO_LGO: "debug" },
            `${start}CODIO_MAX_PEER: unknown variable; did you mean CODIO_MAX_PEERS?; CODIO_LGO: unknown variable; did you mean CODIO_LOG?`
          ],
          [["start"], { CODIO_JSN: "true" }, `${start}CODIO_JSN: unknown variable; did you mean CODIO_JSON?`],
          [
            ["start", "--log", "dth=debug"],
            {},
            `${start}--log: dth: unknown log component; did you mean dht?`
          ],
          [
            ["start"],
            { CODIO_LOG: "relays=debug" },
            `${start}CODIO_LOG: relays: unknown log component; did you mean relay?`
          ],
          [
            ["start", "--max-peers", "5"],
            { CODIO_MIN_PEERS: "6" },
            `${start}minPeers: expected at most maxPeers, which is 5, got 6`
          ],
          [
            ["start", "--log", "dht=loud"],
            {},
            `${start}--log: expected a level or component=level, as in "info,dht=debug,libp2p:tcp=trace", got "dht=loud"; levels are all, trace, debug, info, warn, error, fatal, none`
          ]
        ]
        for (const [args, environment, line] of expectations) {
          assert.deepStrictEqual<unknown>(yield* failureOf(args, environment), [line])
        }
      })).pipe(Effect.provide(NodeServices.layer)))

  it.effect("says in one line which word of the command line it does not know", () =>
    Effect.gen(function*() {
      for (const args of [["start", "--listen-prt", "1"], ["strat"], ["start", "extra"], ["start", "--listen-port"]]) {
        const lines = yield* failureOf(args)
        assert.strictEqual(lines.length, 1, JSON.stringify(lines))
        assert.match(String(lines[0]), /^codio: [^\n]+; see codio( start)? --help$/)
      }
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("says in one line why the node does not start", () =>
    Effect.gen(function*() {
      const failing = () =>
        Layer.effect(
          Network,
          Effect.fail(
            new NetworkStartError({ reason: new HostError({ module: "tcp", detail: "port 4001\nis in use" }) })
          )
        )
      const exit = yield* Effect.exit(
        run(["start"]).pipe(Effect.provideService(Node, failing), Effect.provideService(Environment, {}))
      )
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual<unknown>(yield* TestConsole.errorLines, ["codio: cannot start: tcp: port 4001 is in use"])
      assert.deepStrictEqual(yield* TestConsole.logLines, [])
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  const happenings: ReadonlyArray<NetworkEvent> = [
    new PeerConnected({ peer: remote, address, direction: "outbound", interest: "kept" }),
    new PeerDiscovered({ peer: remote, addresses: [address], source: "mdns" }),
    new PeerIdentified({
      peer: remote,
      agentVersion: "agent\u001b[31m\n2",
      protocolVersion: "/codio/1.0.0",
      protocols: ["/codio/1.0.0"],
      listenAddresses: [address]
    }),
    new PeerPathChanged({
      peer: remote,
      from: { _tag: "Relayed", relay: local, bytesLeft: 5_000, timeLeft: Duration.seconds(90), upgrading: true },
      to: { _tag: "Direct", holePunched: true }
    }),
    new DialFailed({ target: address, reason: "Unreachable", message: "dial: refused" }),
    new DialFailed({ target: address, reason: "Unreachable", message: "dial: refused" }),
    new PeerDisconnected({
      peer: remote,
      reason: "remote",
      remoteReason: "shutdown",
      connectionDuration: Duration.millis(61_400)
    })
  ]

  it.effect("prints one JSON object per line", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf(["--json"], (node) => node.tell(...happenings))
      const time = "1970-01-01T00:00:00.000Z"
      assert.deepStrictEqual(lines.map((line) => JSON.parse(line)), [
        { event: "started", time, peer: local, addresses: [`/ip4/127.0.0.1/tcp/4001/p2p/${local}`] },
        { event: "peer-connected", time, peer: remote, address, direction: "outbound", interest: "kept" },
        { event: "peer-discovered", time, peer: remote, addresses: [address], source: "mdns" },
        {
          event: "peer-identified",
          time,
          peer: remote,
          protocolVersion: "/codio/1.0.0",
          agentVersion: "agent\u001b[31m\n2",
          protocols: ["/codio/1.0.0"],
          listenAddresses: [address]
        },
        {
          event: "peer-path-changed",
          time,
          peer: remote,
          from: { _tag: "Relayed", relay: local, bytesLeft: 5_000, timeLeftMillis: 90_000, upgrading: true },
          to: { _tag: "Direct", holePunched: true }
        },
        { event: "dial-failed", time, target: address, reason: "Unreachable", message: "dial: refused" },
        {
          event: "peer-disconnected",
          time,
          peer: remote,
          reason: "remote",
          remoteReason: "shutdown",
          connectionDurationMillis: 61_400
        },
        { event: "stopped", time: "1970-01-01T00:00:00.001Z" }
      ])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("prints readable lines that a remote cannot break", () =>
    Effect.gen(function*() {
      const lines = yield* linesOf([], (node) => node.tell(...happenings))
      assert.deepStrictEqual(lines.map((line) => line.replace(/^\d\d:\d\d:\d\d/, "time")), [
        `peer id    ${local}`,
        `listening  /ip4/127.0.0.1/tcp/4001/p2p/${local}`,
        `time  connected     ${remote}  ${address}  outbound, kept`,
        `time  identified    ${remote}  agent?[31m 2`,
        `time  path changed  ${remote}  relayed by ${local} (5000 bytes and 1m 30s left) to direct, by a punched hole`,
        `time  not reached   ${address}  dial: refused`,
        `time  disconnected  ${remote}  remote (shutdown), after 1m 1s`,
        "time  stopped"
      ])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("tells a peer once that connected before the events were read", () =>
    Effect.gen(function*() {
      const node = yield* fake
      node.setPeers([new PeerInfo({ ...info, agentVersion: "early" })])
      const closed = yield* Deferred.make<void>()
      const fiber = yield* run(["start", "--json"]).pipe(
        Effect.provideService(Node, node.node),
        Effect.provideService(Environment, {}),
        Effect.provideService(Reader, { gone: Deferred.await(closed), ready: Effect.void }),
        Effect.forkChild
      )
      yield* node.up
      yield* node.tell(...happenings)
      yield* printed("disconnected")
      yield* Deferred.succeed(closed, undefined)
      yield* Fiber.join(fiber)
      const events = (yield* TestConsole.logLines).map((line) => JSON.parse(String(line)).event)
      assert.deepStrictEqual(events, [
        "started",
        "peer-connected",
        "peer-identified",
        "peer-discovered",
        "peer-path-changed",
        "dial-failed",
        "peer-disconnected",
        "stopped"
      ])
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("prints the next line only when the reader has taken the last one", () =>
    Effect.gen(function*() {
      const node = yield* fake
      const taken = yield* Deferred.make<void>()
      const fiber = yield* run(["start"]).pipe(
        Effect.provideService(Node, node.node),
        Effect.provideService(Environment, {}),
        Effect.provideService(Reader, { gone: Effect.never, ready: Deferred.await(taken) }),
        Effect.forkChild
      )
      yield* node.up
      yield* node.tell(...happenings)
      yield* printed("connected")
      yield* TestClock.adjust("1 minute")
      assert.match(String((yield* TestConsole.logLines).at(-1)), / connected /)
      yield* Deferred.succeed(taken, undefined)
      yield* printed("disconnected")
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))

  it.effect("lets the node go and says so when it is interrupted", () =>
    Effect.gen(function*() {
      const node = yield* fake
      const fiber = yield* run(["start", "--json"]).pipe(
        Effect.provideService(Node, node.node),
        Effect.provideService(Environment, {}),
        Effect.forkChild
      )
      yield* node.up
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(node.released(), 1)
      assert.strictEqual(JSON.parse(String((yield* TestConsole.logLines).at(-1))).event, "stopped")
    }).pipe(Effect.provide([NodeServices.layer, TestConsole.layer])))
})
