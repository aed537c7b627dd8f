import type { Mutant } from "./Mutant.ts"

export const machineMutants: ReadonlyArray<Mutant> = []
