import type { Mutant } from "./Mutant.ts"

export const codioMutants: ReadonlyArray<Mutant> = [
  {
    name: "a header has no time limit",
    file: "src/layers/codio/Header.ts",
    text: "Duration.seconds(5)",
    replacement: "Duration.seconds(60)",
    specs: ["test/layers/codio/Header.test.ts"]
  },
  {
    name: "a header that comes in pieces is decoded at each",
    file: "src/layers/codio/Header.ts",
    text: "needed = length",
    replacement: "needed = 1",
    specs: ["test/layers/codio/Header.test.ts"]
  },
  {
    name: "a header in one chunk is copied",
    file: "src/layers/codio/Header.ts",
    text: "(headerLength(chunk) ?? Number.POSITIVE_INFINITY)",
    replacement: "Number.POSITIVE_INFINITY",
    specs: ["test/layers/codio/Header.test.ts"]
  },
  {
    name: "a late request ends its stream gracefully",
    file: "src/layers/codio/CodioProtocol.ts",
    text: "return yield* Effect.interrupt",
    replacement: "return",
    specs: ["test/layers/codio/CodioProtocol.test.ts"]
  }
]
