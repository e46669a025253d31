/**
 * The ONNX wire format (onnx-ml.proto at IR 13) described for protobufjs.
 *
 * `onnx-proto` describes ONNX 1.10 and drops every newer field, so the description is ours. A field reads
 * `name:number:type`, with `*` after the type for repeated and `+` for repeated and packed.
 */
import protobuf from "protobufjs";

const MESSAGES: Record<string, string> = {
  AttributeProto:
    "name:1:string f:2:float i:3:int64 s:4:bytes t:5:TensorProto g:6:GraphProto floats:7:float* ints:8:int64* strings:9:bytes* " +
    "tensors:10:TensorProto* graphs:11:GraphProto* docString:13:string tp:14:TypeProto typeProtos:15:TypeProto* type:20:int32 " +
    "refAttrName:21:string sparseTensor:22:SparseTensorProto sparseTensors:23:SparseTensorProto*",
  ValueInfoProto: "name:1:string type:2:TypeProto docString:3:string metadataProps:4:StringStringEntryProto*",
  NodeProto:
    "input:1:string* output:2:string* name:3:string opType:4:string attribute:5:AttributeProto* docString:6:string domain:7:string " +
    "overload:8:string metadataProps:9:StringStringEntryProto* deviceConfigurations:10:NodeDeviceConfigurationProto*",
  IntIntListEntryProto: "key:1:int64 value:2:int64*",
  NodeDeviceConfigurationProto: "configurationId:1:string shardingSpec:2:ShardingSpecProto* pipelineStage:3:int32",
  ShardingSpecProto:
    "tensorName:1:string device:2:int64* indexToDeviceGroupMap:3:IntIntListEntryProto* shardedDim:4:ShardedDimProto*",
  ShardedDimProto: "axis:1:int64 simpleSharding:2:SimpleShardedDimProto*",
  SimpleShardedDimProto: "dimValue:1:int64 dimParam:2:string numShards:3:int64",
  TrainingInfoProto:
    "initialization:1:GraphProto algorithm:2:GraphProto initializationBinding:3:StringStringEntryProto* " +
    "updateBinding:4:StringStringEntryProto*",
  ModelProto:
    "irVersion:1:int64 producerName:2:string producerVersion:3:string domain:4:string modelVersion:5:int64 docString:6:string " +
    "graph:7:GraphProto opsetImport:8:OperatorSetIdProto* metadataProps:14:StringStringEntryProto* " +
    "trainingInfo:20:TrainingInfoProto* functions:25:FunctionProto* configuration:26:DeviceConfigurationProto*",
  DeviceConfigurationProto: "name:1:string numDevices:2:int32 device:3:string*",
  StringStringEntryProto: "key:1:string value:2:string",
  TensorAnnotation: "tensorName:1:string quantParameterTensorNames:2:StringStringEntryProto*",
  GraphProto:
    "node:1:NodeProto* name:2:string initializer:5:TensorProto* docString:10:string input:11:ValueInfoProto* " +
    "output:12:ValueInfoProto* valueInfo:13:ValueInfoProto* quantizationAnnotation:14:TensorAnnotation* " +
    "sparseInitializer:15:SparseTensorProto* metadataProps:16:StringStringEntryProto*",
  Segment: "begin:1:int64 end:2:int64",
  TensorProto:
    "dims:1:int64* dataType:2:int32 segment:3:Segment floatData:4:float+ int32Data:5:int32+ stringData:6:bytes* int64Data:7:int64+ " +
    "name:8:string rawData:9:bytes doubleData:10:double+ uint64Data:11:uint64+ docString:12:string " +
    "externalData:13:StringStringEntryProto* dataLocation:14:int32 metadataProps:16:StringStringEntryProto*",
  SparseTensorProto: "values:1:TensorProto indices:2:TensorProto dims:3:int64*",
  Dimension: "dimValue:1:int64 dimParam:2:string denotation:3:string",
  TensorShapeProto: "dim:1:Dimension*",
  TensorType: "elemType:1:int32 shape:2:TensorShapeProto",
  SequenceType: "elemType:1:TypeProto",
  MapType: "keyType:1:int32 valueType:2:TypeProto",
  OptionalType: "elemType:1:TypeProto",
  OpaqueType: "domain:1:string name:2:string",
  TypeProto:
    "tensorType:1:TensorType sequenceType:4:SequenceType mapType:5:MapType denotation:6:string opaqueType:7:OpaqueType " +
    "sparseTensorType:8:TensorType optionalType:9:OptionalType",
  OperatorSetIdProto: "domain:1:string version:2:int64",
  FunctionProto:
    "name:1:string input:4:string* output:5:string* attribute:6:string* node:7:NodeProto* docString:8:string " +
    "opsetImport:9:OperatorSetIdProto* domain:10:string attributeProto:11:AttributeProto* valueInfo:12:ValueInfoProto* " +
    "overload:13:string metadataProps:14:StringStringEntryProto*",
};

interface FieldDescriptor {
  id: number;
  type: string;
  rule?: "repeated";
  options?: { packed: boolean };
}

function parseFields(fields: string): Record<string, FieldDescriptor> {
  const parsed: Record<string, FieldDescriptor> = {};
  for (const field of fields.split(" ")) {
    const [name, id, type] = field.split(":") as [string, string, string];
    const bare = type.replace(/[*+]$/, "");
    const descriptor: FieldDescriptor = { id: Number(id), type: bare };
    if (bare !== type) {
      descriptor.rule = "repeated";
      descriptor.options = { packed: type.endsWith("+") };
    }
    parsed[name] = descriptor;
  }
  return parsed;
}

// Under proto2 a field that was written with its default value is written again; protobufjs assumes proto3.
const root = protobuf.Root.fromJSON({
  nested: Object.fromEntries(
    Object.entries(MESSAGES).map(([name, fields]) => [name, { edition: "proto2", fields: parseFields(fields) }]),
  ),
});

// Fields that this schema does not know (a newer IR, a vendor's extension) are kept and written back.
protobuf.Reader.discardUnknown = false;

export const ModelType: protobuf.Type = root.lookupType("ModelProto");
export const TensorType: protobuf.Type = root.lookupType("TensorProto");
export const GraphType: protobuf.Type = root.lookupType("GraphProto");
