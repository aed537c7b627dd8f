import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Schema } from "effect"
import type { ConfigError } from "../../src/schema/NetworkError.ts"
import * as NetworkOptions from "../../src/schema/NetworkOptions.ts"
import { SimNetwork } from "../../src/testing/network/SimNetwork.ts"

/** What a user may write, all of it valid. */
const Written = Schema.Struct({
  listenPort: Schema.optionalKey(Schema.Port),
  maxPeers: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }))),
  minPeers: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 }))),
  enableMdns: Schema.optionalKey(Schema.Boolean),
  enableRelay: Schema.optionalKey(Schema.Boolean),
  kadReplicationFactor: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 }))),
  dialTimeoutSeconds: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 })),
  ports: Schema.Array(Schema.Port)
})

const write = ({ dialTimeoutSeconds, ports, ...rest }: typeof Written.Type): Record<string, unknown> => ({
  ...rest,
  dialTimeout: `${dialTimeoutSeconds} seconds`,
  bootstrapPeers: ports.map((port, index) => `/ip4/192.0.2.1/tcp/${port}/p2p/${SimNetwork.peerId(`peer ${index}`)}`)
})

/** What decoding must give of it. */
const expected = (written: Record<string, unknown>, { dialTimeoutSeconds }: typeof Written.Type) => ({
  ...written,
  dialTimeout: Duration.seconds(dialTimeoutSeconds)
})

/** Fails the test for a defect, and for an error that does not explain itself. */
const explains = <A>(decoding: Effect.Effect<A, ConfigError>, prefix: RegExp) =>
  Effect.exit(decoding).pipe(Effect.map((exit) => {
    if (Exit.isSuccess(exit)) return
    assert.isFalse(Exit.hasDies(exit), String(exit.cause))
    const error = exit.cause.reasons.find((reason) => reason._tag === "Fail")!.error
    assert.isAbove(error.problems.length, 0)
    for (const problem of error.problems) {
      assert.match(problem, prefix)
      assert.notInclude(problem, "\n")
    }
  }))

describe("NetworkOptions", () => {
  it.effect.prop("reads a file as it was written", { input: Written }, ({ input }) =>
    Effect.gen(function*() {
      const written = write(input)
      assert.deepStrictEqual<unknown>(
        yield* NetworkOptions.decodeText("codio.json", JSON.stringify(written)),
        expected(written, input)
      )
    }))

  it.effect.prop("reads the environment as the file", { input: Written }, ({ input }) =>
    Effect.gen(function*() {
      const written = write(input)
      const environment = Object.fromEntries(
        Object.entries(written).map((
          [name, value]
        ) => [NetworkOptions.variable(name as keyof NetworkOptions.NetworkOptions), String(value)])
      )
      const { bootstrapPeers, ...rest } = expected(written, input) as Record<string, unknown>
      // An empty variable counts as absent.
      const wanted = Array.isArray(bootstrapPeers) && bootstrapPeers.length > 0 ? { ...rest, bootstrapPeers } : rest
      assert.deepStrictEqual<unknown>(yield* NetworkOptions.decodeEnvironment(environment), wanted)
    }))

  it.effect.prop("explains every file that it does not take, in one line for each field", {
    text: Schema.String,
    json: Schema.Json
  }, ({ json, text }) =>
    Effect.gen(function*() {
      yield* explains(NetworkOptions.decodeText("codio.json", text), /^codio\.json: /)
      yield* explains(NetworkOptions.decodeText("codio.json", JSON.stringify(json)), /^codio\.json: /)
      for (const name of NetworkOptions.names) {
        yield* explains(NetworkOptions.decode("codio.json", { [name]: json }), new RegExp(`^codio\\.json: ${name}`))
      }
    }))

  it.effect.prop(
    "explains every environment that it does not take",
    { text: Schema.String },
    ({ text }) =>
      Effect.gen(function*() {
        for (const name of NetworkOptions.names) {
          const variable = NetworkOptions.variable(name)
          yield* explains(NetworkOptions.decodeEnvironment({ [variable]: text }), new RegExp(`^${variable}`))
        }
      })
  )

  it.effect("takes both ends of each range and nothing beyond", () =>
    Effect.gen(function*() {
      const ranges = {
        listenPort: [0, 65_535],
        maxPeers: [1, 10_000],
        maxInboundPeers: [0, 10_000],
        maxPeersPerSubnet: [1, 10_000],
        minPeers: [0, 10_000],
        maxPendingInbound: [1, 10_000],
        inboundRate: [1, 100_000],
        inboundBurst: [1, 100_000],
        maxParallelDials: [1, 1_000],
        kadReplicationFactor: [1, 100],
        eventBuffer: [1, 1_000_000]
      }
      for (const [name, [least, most]] of Object.entries(ranges) as Array<[string, [number, number]]>) {
        for (const value of [least, most]) {
          assert.deepStrictEqual<unknown>(yield* NetworkOptions.decode("x", { [name]: value }), { [name]: value })
        }
        for (const value of [least - 1, most + 1, least + 0.5, Number.NaN, `${least}`]) {
          const error = yield* Effect.flip(NetworkOptions.decode("x", { [name]: value }))
          assert.strictEqual(error.problems.length, 1, `${name} ${value}`)
        }
      }
    }))

  it("has a JSON Schema with the type, the range, the meaning and the default of each option", () => {
    const schema = NetworkOptions.jsonSchema()
    const properties = schema["properties"] as Record<string, unknown>
    assert.deepStrictEqual<ReadonlyArray<string>>(Object.keys(properties), NetworkOptions.names)
    assert.strictEqual(schema["additionalProperties"], false)
    assert.deepStrictEqual(properties["maxPeers"], {
      type: "integer",
      minimum: 1,
      maximum: 10_000,
      description: "Connected peers at most",
      default: 50
    })
    assert.deepStrictEqual(properties["minPeers"], {
      type: "integer",
      minimum: 0,
      maximum: 10_000,
      description: "Discovered peers are dialled below this number. Default: a quarter of `maxPeers`"
    })
    assert.deepStrictEqual(properties["dialTimeout"], {
      type: "string",
      description: "A dial may take this long",
      default: "10 seconds"
    })
    assert.deepStrictEqual(properties["bootstrapPeers"], {
      type: "array",
      items: { type: "string" },
      description: "Peer to keep a connection to, as the way into the network",
      default: []
    })
  })
})
