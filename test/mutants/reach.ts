import type { Mutant } from "./Mutant.ts"

export const reachMutants: ReadonlyArray<Mutant> = []
