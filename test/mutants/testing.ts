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
  }
]
