// Asks GetThingConnectivityData with @aws-sdk/client-iot; lines of JSON in, one line out for each.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { IoTClient, GetThingConnectivityDataCommand } = require("@aws-sdk/client-iot");

let settings;
for await (const line of createInterface({ input: process.stdin })) {
  if (!settings) {
    settings = JSON.parse(line);
    console.log(JSON.stringify(require("@aws-sdk/client-iot/package.json").version));
    continue;
  }
  const [endpoint, thingName] = JSON.parse(line);
  const how = settings.keys
    ? { credentials: { accessKeyId: settings.keys[0], secretAccessKey: settings.keys[1] } }
    : { signer: { sign: async (request) => request }, credentials: { accessKeyId: "-", secretAccessKey: "-" } };
  const client = new IoTClient({ region: "eu-west-1", endpoint, ...how });
  let told;
  try {
    told = await client.send(new GetThingConnectivityDataCommand({ thingName }));
    delete told.$metadata;
    if (told.timestamp) told.timestamp = told.timestamp.getTime();
  } catch (error) {
    told = { error: error.name, status: error.$metadata?.httpStatusCode };
  }
  console.log(JSON.stringify(told));
  client.destroy();
}
