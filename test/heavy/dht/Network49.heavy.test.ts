import { crowdSuite } from "./crowdSuite.ts"

crowdSuite({ size: 49 })
