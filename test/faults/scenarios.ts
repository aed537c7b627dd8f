/**
 * The scenarios, one file for each kind of fault.
 */
import type { Scenario } from "./Scenario.ts"
import { dead } from "./scenarios/dead.ts"
import { link } from "./scenarios/link.ts"

export const scenarios: ReadonlyArray<Scenario> = [...dead, ...link]
