import type { Mutant } from "./Mutant.ts"

export const testingMutants: ReadonlyArray<Mutant> = []
