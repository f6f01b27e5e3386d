// A client of the Open Inference Protocol on grpc-js: node inference_client.js PROTO SOCKET MODEL, with @grpc/grpc-js in NODE_PATH.
// Prints one JSON object: what the server and the model say of themselves, the answer to ones, and the status of a refusal.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, socket, model] = process.argv.slice(2);
const { inference } = grpc.loadPackageDefinition(loader.loadSync(proto, { keepCase: true, longs: String }));
const client = new inference.GRPCInferenceService(`unix:${socket}`, grpc.credentials.createInsecure());

function call(method, request) {
  return new Promise((resolve, reject) =>
    client[method](request, (error, answer) => (error ? reject(error) : resolve(answer)))
  );
}

async function main() {
  const server = await call("ServerMetadata", {});
  const described = (await call("ModelMetadata", { name: model })).inputs[0];
  const shape = described.shape.map((size) => (size === "-1" ? 1 : Number(size)));
  const ones = new Float32Array(shape.reduce((all, size) => all * size, 1)).fill(1);
  const request = {
    model_name: model,
    id: "from-node",
    inputs: [{ name: described.name, datatype: described.datatype, shape }],
    raw_input_contents: [Buffer.from(ones.buffer)],
  };
  const answer = await call("ModelInfer", request);
  const raw = answer.raw_output_contents[0];
  const output = Array.from(new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length)));
  const refused = await call("ModelInfer", { model_name: "other" }).catch((error) => grpc.status[error.code]);
  console.log(JSON.stringify({ server: server.name, id: answer.id, shape: answer.outputs[0].shape, output, refused }));
  client.close();
}

main();
