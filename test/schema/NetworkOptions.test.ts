import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Logger, Predicate, Schema } from "effect"
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

/**
 * Fails the test for a defect, for an error that does not explain itself, and when what is taken or refused is not what
 * `isRight` says; it may be either, when undefined.
 */
const explains = <A>(decoding: Effect.Effect<A, ConfigError>, prefix: RegExp, isRight: boolean | undefined) =>
  Effect.exit(decoding).pipe(Effect.map((exit) => {
    if (isRight !== undefined) assert.strictEqual(Exit.isSuccess(exit), isRight, String(exit))
    if (Exit.isSuccess(exit)) return
    assert.isFalse(Exit.hasDies(exit), String(exit.cause))
    const error = exit.cause.reasons.find((reason) => reason._tag === "Fail")!.error
    assert.isAbove(error.problems.length, 0)
    for (const problem of error.problems) {
      assert.match(problem, prefix)
      assert.notInclude(problem, "\n")
    }
  }))

const ranges: Readonly<Record<string, readonly [least: number, most: number]>> = {
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
  maxBufferedBytes: [1_048_576, 1_099_511_627_776],
  maxKnownPeers: [1, 1_000_000],
  eventBuffer: [1, 1_000_000]
}

/** What each option takes, said once more and without its schema. Random text is neither a duration nor an address. */
const takes = (name: NetworkOptions.Name, json: unknown): boolean => {
  const range = ranges[name]
  if (range !== undefined) return Number.isInteger(json) && Number(json) >= range[0] && Number(json) <= range[1]
  if (name === "enableMdns" || name === "enableRelay") return typeof json === "boolean"
  if (name === "dht") return ["server", "client", "off"].some((word) => word === json)
  if (name === "agentVersion" || name === "protocolVersion") {
    return typeof json === "string" && /^[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?$/.test(json)
  }
  if (name === "dataDirectory") return typeof json === "string" && json !== ""
  if (name === "kadProtocol") return typeof json === "string" && /^\/\S{1,255}$/.test(json)
  return Array.isArray(json) && json.length === 0 && /Peers$|Addresses$/.test(name)
}

const takesText = (name: NetworkOptions.Name, text: string): boolean => {
  if (ranges[name] !== undefined) return /^-?\d+$/.test(text) && takes(name, Number(text))
  if (name === "enableMdns" || name === "enableRelay") return text === "true" || text === "false"
  return takes(name, /Peers$|Addresses$/.test(name) ? text.split(",").filter((part) => part.trim() !== "") : text)
}

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
      yield* explains(NetworkOptions.decodeText("codio.json", text), /^codio\.json: /, false)
      const isObject = Predicate.isReadonlyObject(json)
      // A name may come out near to one of an option, such as "DT".
      yield* explains(
        NetworkOptions.decodeText("codio.json", JSON.stringify(json)),
        /^codio\.json: /,
        isObject ? undefined : false
      )
      const far = Object.entries(isObject ? json : {}).map(([name, value]) => [`zzzz${name}`, value] as const)
      yield* explains(
        NetworkOptions.decodeText("codio.json", JSON.stringify(Object.fromEntries(far))),
        /^codio\.json: /,
        true
      )
      for (const name of NetworkOptions.names) {
        yield* explains(
          NetworkOptions.decode("codio.json", { [name]: json }),
          new RegExp(`^codio\\.json: ${name}`),
          takes(name, json)
        )
      }
    }).pipe(Effect.provide(Logger.layer([]))))

  it.effect.prop(
    "explains every environment that it does not take",
    { text: Schema.String },
    ({ text }) =>
      Effect.gen(function*() {
        for (const name of NetworkOptions.names) {
          const variable = NetworkOptions.variable(name)
          yield* explains(
            NetworkOptions.decodeEnvironment({ [variable]: text }),
            new RegExp(`^${variable}`),
            text.trim() === "" || takesText(name, text.trim())
          )
        }
      })
  )

  it.effect("takes both ends of each range and nothing beyond", () =>
    Effect.gen(function*() {
      const others = NetworkOptions.names.filter((name) => NetworkOptions.options[name].expected.startsWith("a whole"))
      assert.sameMembers(Object.keys(ranges), ["listenPort", ...others])
      for (const [name, [least, most]] of Object.entries(ranges)) {
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
