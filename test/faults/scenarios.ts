/**
 * The scenarios, one file for each kind of fault.
 */
import type { Scenario } from "./Scenario.ts"
import { address } from "./scenarios/address.ts"
import { away } from "./scenarios/away.ts"
import { crowd } from "./scenarios/crowd.ts"
import { dead } from "./scenarios/dead.ts"
import { link } from "./scenarios/link.ts"
import { relay } from "./scenarios/relay.ts"
import { rude } from "./scenarios/rude.ts"
import { stall } from "./scenarios/stall.ts"

export const scenarios: ReadonlyArray<Scenario> = [
  ...dead,
  ...stall,
  ...link,
  ...away,
  ...address,
  ...relay,
  ...crowd,
  ...rude
]
