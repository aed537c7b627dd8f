import { crowdSuite } from "./crowdSuite.ts"

crowdSuite({ size: 199, hasNarrowNode: true })
