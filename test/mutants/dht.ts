import type { Mutant } from "./Mutant.ts"

export const dhtMutants: ReadonlyArray<Mutant> = []
