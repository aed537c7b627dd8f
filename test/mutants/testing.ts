import type { Mutant } from "./Mutant.ts"

export const testingMutants: ReadonlyArray<Mutant> = [
  {
    name: "the number of a seed draws another run than its text",
    file: "src/testing/network/SimNetwork.ts",
    text: "Random.withSeed(`${seed}`)",
    replacement: "Random.withSeed(seed)",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a dial that is interrupted closes its connection after the events have told who it is",
    file: "src/testing/ports/SimTransport.ts",
    text: "if (made?.isIdentified === true) return",
    replacement: "",
    specs: ["test/testing/ports/SimTransport.test.ts"]
  },
  {
    name: "a defect in a fiber of the application passes",
    file: "src/testing/scenario/Hosts.ts",
    text: "if (Exit.isFailure(exit) && Cause.hasDies(exit.cause)) hasDied(self, exit.cause)",
    replacement: "",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a simulation takes nobody for sent away",
    file: "src/testing/scenario/Hosts.ts",
    text: "wasSentAway(self, event.peer)",
    replacement: "void 0",
    specs: ["test/testing/scenario/Hosts.test.ts"]
  },
  {
    name: "a simulation takes a node for sent away whose peer stopped",
    file: "src/testing/scenario/Hosts.ts",
    text: "(event.remoteReason ?? \"shutdown\") !== \"shutdown\"",
    replacement: "event.remoteReason !== undefined",
    specs: ["test/testing/scenario/Hosts.test.ts"]
  },
  {
    name: "a simulation takes a node for sent away whose peer is lost",
    file: "src/testing/scenario/Hosts.ts",
    text: "(event.remoteReason ?? \"shutdown\") !== \"shutdown\"",
    replacement: "event.remoteReason !== \"shutdown\"",
    specs: ["test/testing/scenario/Hosts.test.ts"]
  },
  {
    name: "a defect of the application itself passes",
    file: "src/testing/scenario/Hosts.ts",
    text: "if (Exit.isFailure(exit)) hasDied(self, exit.cause)",
    replacement: "",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a defect in a fiber in the time of the node passes",
    file: "src/testing/TestNetwork.ts",
    text: "outer?.recordFiberEnd(context, exit)",
    replacement: "",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "an invariant of the program that dies holds",
    file: "src/testing/scenario/Simulation.ts",
    text: "else if (Exit.isFailure(exit)) failed = broken(\"own\", name, Cause.pretty(exit.cause))",
    replacement: "else if (Exit.isFailure(exit)) continue",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "an invariant after healing is checked from the start",
    file: "src/testing/scenario/Simulation.ts",
    text: "now >= healedMillis",
    replacement: "now >= 0",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "an invariant at the end is never checked",
    file: "src/testing/scenario/Simulation.ts",
    text: "yield* check(true)",
    replacement: "yield* check()",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a step of the program that fails passes",
    file: "src/testing/scenario/Simulation.ts",
    text: "failed ??= broken(\"step\", name, Cause.pretty(exit.cause))",
    replacement: "",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a step of the program outlives the run",
    file: "src/testing/scenario/Simulation.ts",
    text: "yield* Scope.close(stepScope, Exit.void)",
    replacement: "",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "the trace has no steps",
    file: "src/testing/scenario/Journal.ts",
    text: "return [...steps, ...texts]",
    replacement: "return [...texts]",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "the trace has durations as objects",
    file: "src/testing/scenario/Journal.ts",
    text: "Duration.isDuration(value) ?",
    replacement: "value === undefined ?",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a ping is no progress in the simulator",
    file: "src/testing/ports/SimConnection.ts",
    text: "const pingBytes = 32",
    replacement: "const pingBytes = 0",
    specs: ["test/testing/ports/SimTransport.test.ts"]
  },
  {
    name: "a simulated stream is lost by a clean end",
    file: "src/testing/ports/SimByteStream.ts",
    text: "    isOver = true\n    share",
    replacement: "    isOver = true\n    Deferred.doneUnsafe(wasReset, Effect.void)\n    share",
    specs: ["test/testing/ports/SimTransport.test.ts"]
  },
  {
    name: "a peer may have a node on one side only as long as a dead one stays",
    file: "src/testing/scenario/Invariants.ts",
    text: "oneSidedMillis > options.oneSidedMillisMax(node, other)",
    replacement: "oneSidedMillis > healthMillis",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a peer may have a node on one side only for ten seconds by default",
    file: "src/testing/scenario/Simulation.ts",
    text: "1_000 + Duration.toMillis(slowest(name, other.name, 3))",
    replacement: "10_000",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a message takes no longer where some are lost",
    file: "src/testing/network/SimLine.ts",
    text: "retransmissionMillis * (2 ** losses - 1)",
    replacement: "0",
    specs: ["test/testing/network/SimNetwork.test.ts"]
  },
  {
    name: "messages between two nodes take as long as on the faster link",
    file: "src/testing/network/SimNetwork.ts",
    text: "Math.max(slowestMillis(",
    replacement: "Math.min(slowestMillis(",
    specs: ["test/testing/network/SimNetwork.test.ts"]
  },
  {
    name: "a kept peer may be missing for as long however short it was away",
    file: "src/testing/scenario/Simulation.ts",
    text: "1.5 * (awayMillis + dialTimeoutMillis) + 1_200 + dialMillis",
    replacement: "Infinity",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a connection of a moment ends the time away",
    file: "src/testing/scenario/Invariants.ts",
    text: "now - time.since >= steadyMillis",
    replacement: "now - time.since >= 0",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a keeper that began alone has been without its peer since it came",
    file: "src/testing/scenario/Invariants.ts",
    text: "this.starts.get(name) ?? now",
    replacement: "now",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a simulated ping goes over the newest connection",
    file: "src/testing/ports/SimTransport.ts",
    text: "compare({ direction: a.connection.direction, isDirect: true }, {",
    replacement: "0 * compare({ direction: a.connection.direction, isDirect: true }, {",
    specs: ["test/testing/network/SimNetwork.test.ts"]
  },
  {
    name: "a peer that came back between two looks has been there all the time",
    file: "src/testing/scenario/Invariants.ts",
    text: "if (cameAt !== time.cameAt) time.since = undefined",
    replacement: "",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a node hears whoever is mute",
    file: "src/testing/network/SimNetwork.ts",
    text: "!own.isClosed && !isBlocked(other, peer))",
    replacement: "!own.isClosed && (other !== peer))",
    specs: ["test/testing/network/SimNetwork.test.ts"]
  },
  {
    name: "a node hears over a connection that its peer has left behind",
    file: "src/testing/network/SimNetwork.ts",
    text: "(from !== peer && to !== peer) || line.isStray",
    replacement: "from !== peer && to !== peer",
    specs: ["test/testing/network/SimNetwork.test.ts"]
  },
  {
    name: "messages that were on their way are no sign of life",
    file: "src/testing/scenario/Invariants.ts",
    text: "(isHeard ? 2 : 0)",
    replacement: "0",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a peer that wakes answers nothing",
    file: "src/testing/scenario/Invariants.ts",
    text: "(isHeard && other.isAwake ? 4 : 0)",
    replacement: "0",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a peer that wakes is heard, whatever lies between",
    file: "src/testing/scenario/Invariants.ts",
    text: "(isHeard && other.isAwake ? 4 : 0)",
    replacement: "(other.isAwake ? 4 : 0)",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a new connection is no sign of life",
    file: "src/testing/scenario/Invariants.ts",
    text: "(isNeighbour ? 1 : 0)",
    replacement: "0",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a connection lasts while its node sleeps",
    file: "src/testing/scenario/Invariants.ts",
    text: "!(isAwake && time.wasAwake)",
    replacement: "false",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a message is due by two measures",
    file: "src/testing/network/SimLine.ts",
    text: "if (isDue(at)) pump()",
    replacement: "if (waitUntil(at, board.now()) <= roundingMillis) pump()",
    specs: ["test/testing/network/SimLine.test.ts"]
  },
  {
    name: "a peer that starts anew has not been away",
    file: "src/testing/scenario/Invariants.ts",
    text: "if (!names.has(keeper!)) this.times.delete(key)",
    replacement: "if (!names.has(keeper!) || !names.has(other!)) this.times.delete(key)",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a connection goes on while its peer is gone",
    file: "src/testing/scenario/Invariants.ts",
    text: "else if (!names.has(other!)) time.since = undefined",
    replacement: "",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "a disconnect is over before its message has arrived",
    file: "src/testing/scenario/Invariants.ts",
    text: "      // The other node has the connection until it hears of its end.\n      time.since = undefined\n",
    replacement: "",
    specs: ["test/testing/scenario/Invariants.test.ts"]
  },
  {
    name: "content that does not work at the end passes",
    file: "src/testing/scenario/Content.ts",
    text: "return claims[index]",
    replacement: "return undefined",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a lookup that never ends passes",
    file: "src/testing/scenario/Content.ts",
    text: "return exit === undefined ||",
    replacement: "if (exit === undefined) return false\n          return",
    specs: ["test/testing/scenario/Simulation.test.ts"]
  },
  {
    name: "a simulated node needs no name",
    file: "src/testing/TestNetwork.ts",
    text: "const problem = typeof name !== \"string\"",
    replacement: "const problem = name === \"\"",
    specs: ["test/sim/arguments.test.ts"]
  }
]
