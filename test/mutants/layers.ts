import type { Mutant } from "./Mutant.ts"

/** The tools that all rooms share. */
export const layersMutants: ReadonlyArray<Mutant> = [
  {
    name: "time that passes is read from the wall clock",
    file: "src/layers/Elapsed.ts",
    text: "Number(clock.monotonicTimeNanosUnsafe()) / 1e6",
    replacement: "clock.currentTimeMillisUnsafe()",
    specs: ["test/layers/Elapsed.test.ts", "test/sim/clock.test.ts"]
  },
  {
    name: "a clock that is set back takes back the sleep",
    file: "src/layers/Elapsed.ts",
    text: "Math.max(0, leap)",
    replacement: "leap",
    specs: ["test/layers/Elapsed.test.ts"]
  },
  {
    name: "Node 22.18 is new enough",
    file: "src/layers/NodeVersion.ts",
    text: "minor >= 19",
    replacement: "minor >= 18",
    specs: ["test/layers/NodeVersion.live.test.ts"]
  },
  {
    name: "an entry of the package does not look at Node's version",
    file: "src/layers/index.ts",
    text: "import \"./requireNode.ts\"\n",
    replacement: "",
    specs: ["test/layers/NodeVersion.live.test.ts"]
  },
  {
    name: "a defect ends background work",
    file: "src/layers/Supervised.ts",
    text: "if (!isDefect(cause)) return yield* Effect.failCause(cause)",
    replacement: "return yield* Effect.failCause(cause)",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "a defect is logged each time",
    file: "src/layers/Supervised.ts",
    text: "logged.set(text, true)",
    replacement: "",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "a defect is not counted",
    file: "src/layers/Supervised.ts",
    text: "        count++\n",
    replacement: "",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "a defect ends the supervision of its peer",
    file: "src/layers/peers/Supervisor.ts",
    text: "if (!Supervised.isDefect(cause)) return yield* Effect.failCause(cause)",
    replacement: "return yield* Effect.failCause(cause)",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "explain does not tell of a defect",
    file: "src/layers/peers/Supervisor.ts",
    text: "PeerRecord.died(peer, now, String(Cause.squash(cause)))",
    replacement: "",
    specs: ["test/sim/defects.test.ts"]
  },
  {
    name: "background work is forked bare",
    file: "src/layers/peers/Idleness.ts",
    text: "yield* Supervised.forever(\"the end of idle peers\", watch)",
    replacement: "yield* Effect.forkScoped(Effect.forever(watch))",
    specs: ["test/house/background.test.ts"]
  }
]
