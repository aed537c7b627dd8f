import type { Mutant } from "./Mutant.ts"

export const cliMutants: ReadonlyArray<Mutant> = [
  {
    name: "the end of the process waits for the names that are being resolved",
    file: "src/cli/exit.ts",
    text: "includes(\"GetAddrInfoReqWrap\")",
    replacement: "includes(\"None\")",
    specs: ["test/cli/start.live.test.ts"],
    only: "ends within 2 s of SIGINT while a name server does not answer"
  },
  {
    name: "the end of the process has the code of a success",
    file: "src/cli/exit.ts",
    text: "  process.exit(code)\n}",
    replacement: "  process.exit(0)\n}",
    specs: ["test/cli/start.live.test.ts"],
    only: "refuses a data directory that another process uses"
  },
  {
    name: "SIGHUP kills the program",
    file: "src/cli/main.ts",
    text: "process.on(\"SIGHUP\", () => process.emit(\"SIGTERM\"))",
    replacement: "",
    specs: ["test/cli/start.live.test.ts"],
    only: "ends with code 0 within 2 s of SIGINT"
  },
  {
    name: "contradictions are told only once libp2p is loaded",
    file: "src/cli/options.ts",
    text: "yield* NetworkConfig.resolve({ ...programDefaults, ...network })",
    replacement: "yield* NetworkConfig.resolve({ ...programDefaults })",
    specs: ["test/cli/codio.live.test.ts"]
  }
]
