import { crowdSuite } from "./crowdSuite.ts"

crowdSuite({ size: 20 })
