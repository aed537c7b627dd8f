import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { createServer } from "node:net"
import { once } from "node:events"
import { multicastProblem } from "../../src/layers/discovery/MdnsDiscovery.ts"
import { codio, isPermitted, type Line, type Program } from "../support/Codio.ts"

const multicast = await Effect.runPromise(multicastProblem())

const loopback = ["start", "--json", "--no-mdns", "--listen-address", "/ip4/127.0.0.1/tcp/0"]

const started = (program: Program) => program.line("started", (line) => line.event === "started")

const connected = (program: Program, peer: string | undefined) =>
  program.line(`connected to ${peer}`, (line) => line.event === "peer-connected" && line.peer === peer)

const timeOf = (line: Line) => Date.parse(line.time)

const bootstrap = (...lines: ReadonlyArray<Line>): ReadonlyArray<string> =>
  lines.flatMap((line) => ["--bootstrap-peer", line.addresses![0]!])

const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped({ prefix: "codio-cli-" }))

/** Runs the program to its end. */
const outcome = (args: ReadonlyArray<string>, environment?: Readonly<Record<string, string>>) =>
  Effect.scoped(Effect.flatMap(codio(args, environment), (program) => program.ended))

describe("codio start, as a process", () => {
  // How three processes find each other: by multicast alone, or told by flags where the machine has none.
  const byMdns = ["mDNS", ["start", "--json"], () => []] as const
  const byFlags = ["bootstrap peers", loopback, bootstrap] as const
  const scenarios = multicast === undefined ? [byMdns] : [byMdns, byFlags]
  for (const [means, args, knowing] of scenarios) {
    it.live(
      `three that meet by ${means} know each other within 2 s, notice a kill within 1 s, and have the killed one back within 3 s`,
      (context) =>
        Effect.gen(function*() {
          if (means === "mDNS" && multicast !== undefined) return context.skip(`mDNS between processes: ${multicast}`)
          const directory = yield* temporary
          const first = yield* codio(args)
          const one = yield* started(first)
          const second = yield* codio([...args, ...knowing(one)])
          const two = yield* started(second)
          const thirdArgs = [...args, ...knowing(one, two), "--data-directory", directory]
          const third = yield* codio(thirdArgs)
          const three = yield* started(third)

          const meetings = yield* Effect.all([
            connected(first, two.peer),
            connected(first, three.peer),
            connected(second, one.peer),
            connected(second, three.peer),
            connected(third, one.peer),
            connected(third, two.peer)
          ])
          for (const meeting of meetings) assert.isBelow(timeOf(meeting) - timeOf(three), 2000)
          const identified = yield* third.line("identified", (line) =>
            line.event === "peer-identified" && line.peer === one.peer)
          assert.match(identified.agentVersion ?? "", /^codio-network\//)

          const killed = Date.now()
          third.kill("SIGKILL")
          for (const program of [first, second]) {
            const gone = yield* program.line("the loss", (line) =>
              line.event === "peer-disconnected" && line.peer === three.peer)
            assert.strictEqual(gone.reason, "lost")
            assert.isBelow(timeOf(gone) - killed, 1000)
          }

          const again = yield* codio(thirdArgs)
          const back = yield* started(again)
          assert.strictEqual(back.peer, three.peer)
          for (const [program, other] of [[first, one], [second, two]] as const) {
            const meeting = yield* program.line(
              "the return",
              (line) =>
                line.event === "peer-connected" && line.peer === three.peer && timeOf(line) > killed
            )
            assert.isBelow(timeOf(meeting) - timeOf(back), 3000)
            assert.isBelow(timeOf(yield* connected(again, other.peer)) - timeOf(back), 3000)
          }
        }).pipe(Effect.provide(NodeServices.layer))
    )
  }

  it.live(
    "ends with code 0 within 2 s of SIGINT, SIGTERM or SIGHUP, and by itself when nobody reads its output any more",
    () =>
      Effect.gen(function*() {
        const first = yield* codio(loopback)
        const one = yield* started(first)
        const others = yield* Effect.forEach(["SIGINT", "SIGHUP", "SIGTERM"] as const, (signal) =>
          Effect.gen(function*() {
            const program = yield* codio([...loopback, ...bootstrap(one)])
            const { peer } = yield* started(program)
            yield* connected(program, one.peer)
            yield* connected(first, peer)
            return { peer, program, signal }
          }), { concurrency: 2 })

        for (const { peer, program, signal } of others) {
          // The last time the goodbye is the word that finds no reader.
          if (signal === "SIGTERM") {
            first.closeOutput()
          }
          const asked = Date.now()
          program.kill(signal)
          const { code, stderr, stdout } = yield* program.ended
          assert.isBelow(Date.now() - asked, 2000)
          assert.strictEqual(code, 0)
          assert.strictEqual(stderr, "")
          assert.strictEqual(JSON.parse(stdout.at(-1) ?? "{}").event, "stopped")
          if (signal !== "SIGTERM") {
            const left = yield* first.line(
              "the goodbye",
              (line) =>
                line.event === "peer-disconnected" && line.peer === peer
            )
            assert.deepStrictEqual([left.reason, left.remoteReason], ["remote", "shutdown"])
          }
        }
        const { code, stderr } = yield* first.ended
        assert.strictEqual(stderr, "")
        assert.strictEqual(code, 0)
      })
  )

  it.live(
    "refuses a data directory that another process uses, in one line; the other one logs what its filter names",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const holder = yield* codio([...loopback, "--data-directory", directory, "--log", "warn,libp2p:tcp=trace"])
        yield* started(holder)
        const refused = yield* outcome([...loopback, "--data-directory", directory])
        assert.strictEqual(
          refused.stderr,
          `codio: cannot start: data directory ${directory}: is used by process ${holder.pid}; ` +
            "stop it, or give this node another dataDirectory\n"
        )
        assert.strictEqual(refused.code, 1)
        assert.deepStrictEqual(refused.stdout, [])

        holder.kill("SIGINT")
        const { stderr } = yield* holder.ended
        const components = new Set(stderr.trim().split("\n").map((line) => String(JSON.parse(line).component)))
        assert.isAbove(components.size, 0)
        for (const component of components) assert.match(component, /^libp2p:tcp(:|$)/)
      }).pipe(Effect.provide(NodeServices.layer))
  )

  it.live("says in one line that its port is in use", () =>
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = createServer().listen(0, "127.0.0.1")
          await once(server, "listening")
          return server
        }),
        (server) => Effect.promise(async () => server.close())
      )
      const { port } = server.address() as { readonly port: number }
      const { code, stderr, stdout } = yield* outcome([
        "start",
        "--no-mdns",
        "--listen-address",
        `/ip4/127.0.0.1/tcp/${port}`
      ])
      assert.match(stderr, new RegExp(`^codio: cannot start: [^\\n]*${port}[^\\n]*in use[^\\n]*\\n$`))
      assert.strictEqual(code, 1)
      assert.deepStrictEqual(stdout, [])
    }))

  it.live("ends within 2 s of SIGINT while a name server does not answer, which names of /etc/hosts do not need", (context) =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* temporary
      yield* fs.writeFileString(`${directory}/resolv.conf`, "nameserver 10.255.255.53\n")
      yield* fs.writeFileString(`${directory}/hosts`, "127.0.0.1 localhost here.example\n")
      const setUp = [
        ...["resolv.conf", "hosts"].map((name) => `mount --bind ${directory}/${name} /etc/${name}`),
        "ip link set lo up",
        // A cable to nowhere: what is sent to the name server is lost.
        "ip link add cable type veth peer name nowhere",
        "ip addr add 10.255.255.1/24 dev cable",
        "ip link set nowhere up && ip link set cable up",
        "ip neigh add 10.255.255.53 lladdr 02:00:00:00:00:01 dev cable"
      ].join(" && ")
      if (!isPermitted(setUp)) return context.skip("network namespaces are not permitted here")
      const peers = ["dead.example", "here.example"].map((name) => `/dns4/${name}/tcp/1`)
      const program = yield* codio([...loopback, ...peers.flatMap((peer) => ["--bootstrap-peer", peer])], {}, setUp)
      yield* started(program)
      yield* program.line(
        "a dial that needs no name server",
        ({ event, target }) => event === "dial-failed" && target === peers[1]
      )
      assert.isFalse(program.lines().some(({ target }) => target === peers[0]))
      const asked = Date.now()
      program.kill("SIGINT")
      const { code, signal, stderr, stdout } = yield* program.ended
      assert.isBelow(Date.now() - asked, 2000)
      assert.deepStrictEqual([code, signal, stderr], [0, null, ""])
      assert.strictEqual(JSON.parse(stdout.at(-1) ?? "{}").event, "stopped")
      return undefined
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("says in one line that Node is too old", () =>
    Effect.gen(function*() {
      const faked = (version: string) => `Object.defineProperty(process.versions,"node",{value:"${version}"})`
      const outcomes = yield* Effect.forEach(["20.20.2", "22.18.0"], (version) =>
        outcome(["start"], { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(faked(version))}` }))
      assert.deepStrictEqual(
        outcomes,
        ["20.20.2", "22.18.0"].map((version) => ({
          code: 1,
          signal: null,
          stdout: [],
          stderr: `codio: Node 22.19 or newer is needed, this is ${version}\n`
        }))
      )
    }))

  it.live("says in one line what is wrong with a flag, a variable or the config file", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = yield* fs.makeTempFileScoped({ prefix: "codio-", suffix: ".json" })
      yield* fs.writeFileString(file, "{\"maxPeers\": 0,\n")
      const outcomes = yield* Effect.all([
        outcome(["start", "--listen-prt", "1"]),
        outcome(["start"], { CODIO_LISTEN_PORT: "abc" }),
        outcome(["start", "--config", file])
      ], { concurrency: 2 })
      const [flag, variable, config] = outcomes.map((one) => one.stderr)
      assert.match(flag ?? "", /^codio: Unrecognized flag: --listen-prt[^\n]*; see codio start --help\n$/)
      assert.strictEqual(
        variable,
        "codio: cannot start: invalid options: CODIO_LISTEN_PORT: expected a port number from 0 to 65535, got \"abc\"\n"
      )
      assert.match(config ?? "", /^codio: cannot start: invalid options: [^\n]*\.json: not valid JSON: [^\n]+\n$/)
      for (const { code, stdout } of outcomes) {
        assert.strictEqual(code, 1)
        assert.deepStrictEqual(stdout, [])
      }
    }).pipe(Effect.provide(NodeServices.layer)))
})
