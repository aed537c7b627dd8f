import type { Mutant } from "./Mutant.ts"

export const healthMutants: ReadonlyArray<Mutant> = [
  {
    name: "little traffic makes a silent peer alive",
    file: "src/layers/peers/PingHealth.ts",
    text: "const aliveBytes = 16 * 1024",
    replacement: "const aliveBytes = 16",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "much traffic is needed to be alive",
    file: "src/layers/peers/PingHealth.ts",
    text: "const aliveBytes = 16 * 1024",
    replacement: "const aliveBytes = 64 * 1024",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a stalled process restarts the clock for ever",
    file: "src/layers/peers/PingHealth.ts",
    text: "else if (++wait.leaps > leapsMax) wait.ran += span",
    replacement: "else if (++wait.leaps > 1e6) wait.ran += span",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a stalled process restarts the clock once",
    file: "src/layers/peers/PingHealth.ts",
    text: "const leapsMax = 3",
    replacement: "const leapsMax = 1",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "stalls are counted for ever",
    file: "src/layers/peers/PingHealth.ts",
    text: "if (!wait.leapt) wait.leaps = 0",
    replacement: "",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "an answer after a stall counts",
    file: "src/layers/peers/PingHealth.ts",
    text: "      return !wait.leapt\n    },",
    replacement: "      return true\n    },",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a stall is time that ran",
    file: "src/layers/peers/PingHealth.ts",
    text: "const leapt = withSleep() - startWithSleep - span > quarter",
    replacement: "const leapt = withSleep() - startWithSleep - span > 1e9",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "misses add up over answers",
    file: "src/layers/peers/PingHealth.ts",
    text: "    const answered = () => {\n      misses = 0\n      silent = undefined\n    }",
    replacement: "    const answered = () => {}",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a peer that does not speak ping is unhealthy",
    file: "src/layers/peers/PingHealth.ts",
    text: "          Effect.catchReason(\"PingError\", \"PingUnsupported\", () => Effect.sync(answered)),\n",
    replacement: "",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "one miss ends the peer",
    file: "src/layers/peers/PingHealth.ts",
    text: "if (misses < policy.maxFailures) {",
    replacement: "if (misses < 1) {",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "refused streams use up all misses at once",
    file: "src/layers/peers/PingHealth.ts",
    text: "if (result.failure.reason._tag === \"StreamFailed\") yield* Effect.sleep(timeout)",
    replacement: "",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a miss is not told",
    file: "src/layers/peers/PingHealth.ts",
    text: "yield* events.publish(new PeerUnhealthy({ peer, misses }))",
    replacement: "yield* Effect.void",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "an unhealthy peer counts as lost without a reason",
    file: "src/layers/peers/PingHealth.ts",
    text: "yield* table.expect(peer, \"unhealthy\")",
    replacement: "yield* Effect.void",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "an unhealthy peer keeps its connections",
    file: "src/layers/peers/PingHealth.ts",
    text: "(connection) => connection.close, {",
    replacement: "() => Effect.void, {",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "the round trip is not kept",
    file: "src/layers/peers/PingHealth.ts",
    text: "Effect.as(table.measured(wait.peer, roundTripTime), roundTripTime)",
    replacement: "Effect.succeed(roundTripTime)",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  },
  {
    name: "a ping that waits for its turn has no more time",
    file: "src/layers/peers/PingHealth.ts",
    text: "if (!isItsTurn) { for (const other of waits) if (other !== wait && other.peer === wait.peer) pings++ }",
    replacement: "",
    specs: ["test/layers/peers/PingHealth.test.ts"]
  }
]
