// A command a call: what an application does with the agent, to read and to try.
#include <grp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sagemaker_edge_client.hh"

namespace {

using sagemaker_edge::CallError;
using sagemaker_edge::Client;
using sagemaker_edge::SharedSegment;
namespace api = sagemaker_edge::api;

constexpr char kDefaultSocket[] = "/tmp/sagemaker_edge_agent_example.sock";
constexpr std::size_t kShownValues = 10;
constexpr int kStatusTries = 150;
constexpr std::chrono::milliseconds kStatusPause{200};
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNoAgent = 3;

constexpr char kUsage[] =
    "usage: sagemaker_edge_client_example [-a SOCKET] [-g GROUP] COMMAND ...\n"
    "\n"
    "  ListModels\n"
    "  LoadModel [model_path] [model_name]\n"
    "  DescribeModel [model_name]\n"
    "  UnloadModel [model_name]\n"
    "  Predict             [model_name] [input_bmp_image] [input_name] [w] [h] [c]\n"
    "  PredictSHM          the same, the picture handed over in shared memory\n"
    "  PredictAndCapture   the same as Predict, then CaptureData and its status\n"
    "  PredictSHMAndCapture\n"
    "  GetCaptureDataStatus [capture_id]\n"
    "\n"
    "  -a SOCKET  the agent's socket; else $SAGEMAKER_EDGE_SOCKET, else\n"
    "             /tmp/sagemaker_edge_agent_example.sock\n"
    "  -g GROUP   let this group read shared memory: for an agent that runs as a\n"
    "             user of its own\n"
    "\n"
    "Exit status: 0 done, 1 refused, 2 wrong usage, 3 no agent on the socket.\n";

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// --- pictures ----------------------------------------------------------------

struct Picture {
  std::size_t width = 0;
  std::size_t height = 0;
  std::vector<std::uint8_t> rgb;  // rows from the top, 3 bytes a pixel
};

std::uint32_t little_endian(const std::string& bytes, std::size_t offset, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) {
    value |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(bytes.at(offset + i))) << (8 * i);
  }
  return value;
}

// Reads an uncompressed BMP of 24 or 32 bits a pixel, the form that every
// image program can write. Throws std::runtime_error.
Picture read_bmp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() < 54 || bytes.compare(0, 2, "BM") != 0) throw std::runtime_error(path + " is not a BMP picture");
  const std::size_t pixels = little_endian(bytes, 10, 4);
  const auto width = static_cast<std::int32_t>(little_endian(bytes, 18, 4));
  const auto signed_height = static_cast<std::int32_t>(little_endian(bytes, 22, 4));
  const std::size_t depth = little_endian(bytes, 28, 2) / 8;
  const bool compressed = little_endian(bytes, 30, 4) != 0;
  if (compressed || (depth != 3 && depth != 4)) {
    throw std::runtime_error(path + ": only uncompressed BMP of 24 or 32 bits a pixel");
  }
  if (width <= 0 || signed_height == 0 || width > 32768 || std::abs(static_cast<long>(signed_height)) > 32768) {
    throw std::runtime_error(path + ": not a picture's size");
  }
  Picture picture;
  picture.width = static_cast<std::size_t>(width);
  picture.height = static_cast<std::size_t>(std::abs(signed_height));
  const std::size_t stride = (picture.width * depth + 3) / 4 * 4;  // rows are padded to 4 bytes
  if (bytes.size() < pixels + stride * picture.height) throw std::runtime_error(path + " is cut short");
  picture.rgb.resize(picture.width * picture.height * 3);
  for (std::size_t y = 0; y < picture.height; ++y) {
    const std::size_t row = signed_height > 0 ? picture.height - 1 - y : y;  // normally stored bottom up
    for (std::size_t x = 0; x < picture.width; ++x) {
      for (std::size_t c = 0; c < 3; ++c) {
        picture.rgb[(y * picture.width + x) * 3 + c] =
            static_cast<std::uint8_t>(bytes[pixels + row * stride + x * depth + (2 - c)]);  // stored as BGR
      }
    }
  }
  return picture;
}

// The picture at another size and with 1 (grey) or 3 channels: values 0..255,
// rows of pixels of channels. Each pixel is the mean of the area it covers.
std::vector<float> resample(const Picture& picture, std::size_t width, std::size_t height, std::size_t channels) {
  std::vector<float> out(width * height * channels);
  for (std::size_t y = 0; y < height; ++y) {
    const std::size_t top = y * picture.height / height;
    const std::size_t bottom = std::max(top + 1, (y + 1) * picture.height / height);
    for (std::size_t x = 0; x < width; ++x) {
      const std::size_t left = x * picture.width / width;
      const std::size_t right = std::max(left + 1, (x + 1) * picture.width / width);
      float sums[3] = {0, 0, 0};
      for (std::size_t v = top; v < bottom; ++v) {
        for (std::size_t u = left; u < right; ++u) {
          for (std::size_t c = 0; c < 3; ++c) sums[c] += picture.rgb[(v * picture.width + u) * 3 + c];
        }
      }
      const auto area = static_cast<float>((bottom - top) * (right - left));
      float* pixel = &out[(y * width + x) * channels];
      if (channels == 1) {
        pixel[0] = (0.299F * sums[0] + 0.587F * sums[1] + 0.114F * sums[2]) / area;
      } else {
        for (std::size_t c = 0; c < 3; ++c) pixel[c] = sums[c] / area;
      }
    }
  }
  return out;
}

// --- tensors -----------------------------------------------------------------

// Values 0..255 as the model's type takes them: floats scaled to 0..1, UINT8
// as they are, INT8 shifted by -128 (the usual quantisation of pictures).
std::string encode_pixels(const std::vector<float>& values, api::DataType type) {
  std::string bytes;
  switch (type) {
    case api::FLOAT32:
      bytes.resize(values.size() * sizeof(float));
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float scaled = values[i] / 255.0F;
        std::memcpy(&bytes[i * sizeof(float)], &scaled, sizeof(float));
      }
      return bytes;
    case api::UINT8:
      for (const float value : values) bytes.push_back(static_cast<char>(std::lround(value)));
      return bytes;
    case api::INT8:
      for (const float value : values) bytes.push_back(static_cast<char>(std::lround(value) - 128));
      return bytes;
    default:
      throw std::runtime_error("this example makes FLOAT32, UINT8 and INT8 pictures, the model takes " +
                               api::DataType_Name(type));
  }
}

// Rows of pixels of channels to planes, for models that take [1, c, h, w].
std::vector<float> to_planes(const std::vector<float>& values, std::size_t channels) {
  std::vector<float> out(values.size());
  const std::size_t pixels = values.size() / channels;
  for (std::size_t i = 0; i < values.size(); ++i) out[(i % channels) * pixels + i / channels] = values[i];
  return out;
}

std::string shape_text(const api::TensorMetadata& metadata) {
  std::string text = "[";
  for (int i = 0; i < metadata.shape_size(); ++i) text += (i ? ", " : "") + std::to_string(metadata.shape(i));
  return text + "]";
}

void print_metadata(const char* kind, const api::TensorMetadata& metadata) {
  std::cout << "  " << kind << " " << metadata.name() << " " << api::DataType_Name(metadata.data_type()) << " "
            << shape_text(metadata) << "\n";
}

void print_model(const api::Model& model) {
  std::cout << model.name() << " (" << model.url() << ")\n";
  for (const auto& metadata : model.input_tensor_metadatas()) print_metadata("input ", metadata);
  for (const auto& metadata : model.output_tensor_metadatas()) print_metadata("output", metadata);
}

template <typename T>
void print_values(const std::string& bytes) {
  const std::size_t count = bytes.size() / sizeof(T);
  for (std::size_t i = 0; i < std::min(count, kShownValues); ++i) {
    T value;
    std::memcpy(&value, &bytes[i * sizeof(T)], sizeof(T));
    std::cout << " " << +value;
  }
  std::cout << (count > kShownValues ? " ...\n" : "\n");
}

void print_tensor(const api::Tensor& tensor) {
  print_metadata("output", tensor.tensor_metadata());
  std::cout << "   ";
  switch (tensor.tensor_metadata().data_type()) {
    case api::FLOAT32:
      return print_values<float>(tensor.byte_data());
    case api::FLOAT64:
      return print_values<double>(tensor.byte_data());
    case api::INT8:
      return print_values<std::int8_t>(tensor.byte_data());
    case api::INT32:
      return print_values<std::int32_t>(tensor.byte_data());
    case api::INT64:
      return print_values<std::int64_t>(tensor.byte_data());
    case api::UINT8:
    case api::BOOL:
      return print_values<std::uint8_t>(tensor.byte_data());
    default:
      std::cout << " " << tensor.byte_data().size() << " bytes\n";
  }
}

// --- commands ----------------------------------------------------------------

struct PredictOptions {
  bool shared_memory;
  bool capture;
};

std::size_t size_argument(const std::string& word, const char* name) {
  try {
    const unsigned long value = std::stoul(word);
    if (value > 0 && value <= 16384) return value;
  } catch (const std::exception&) {
  }
  throw UsageError(std::string(name) + " must be a whole number from 1 to 16384, not " + word);
}

// Waits until the capture has arrived or was given up. An application would
// go on with its work and ask now and then.
api::CaptureDataStatus wait_for_capture(Client& client, const std::string& id) {
  api::CaptureDataStatus status = client.capture_status(id);
  for (int i = 0; i < kStatusTries && status == api::IN_PROGRESS; ++i) {
    std::this_thread::sleep_for(kStatusPause);
    status = client.capture_status(id);
  }
  return status;
}

int predict(Client& client, const std::vector<std::string>& words, PredictOptions options, std::optional<gid_t> group) {
  const std::string& name = words[1];
  const std::string& input_name = words[3];
  const std::size_t width = size_argument(words[4], "w");
  const std::size_t height = size_argument(words[5], "h");
  const std::size_t channels = size_argument(words[6], "c");
  if (channels != 1 && channels != 3) throw UsageError("c must be 1 (grey) or 3 (RGB)");

  const api::Model model = client.describe_model(name);
  const auto& inputs = model.input_tensor_metadatas();
  const auto wanted =
      std::find_if(inputs.begin(), inputs.end(), [&](const auto& input) { return input.name() == input_name; });
  if (wanted == inputs.end()) {
    print_model(model);
    throw std::runtime_error("model " + name + " has no input named " + input_name);
  }
  api::TensorMetadata metadata = *wanted;
  std::vector<float> pixels = resample(read_bmp(words[2]), width, height, channels);
  // A picture model takes [1, h, w, c] or [1, c, h, w]. Any other form is sent
  // in the first order; the agent says if it does not fit.
  const int rank = metadata.shape_size();
  const auto is_size = [&](int axis, std::size_t size) { return metadata.shape(axis) == static_cast<std::int64_t>(size); };
  if (rank >= 3 && is_size(rank - 3, channels) && !is_size(rank - 1, channels)) pixels = to_planes(pixels, channels);
  std::string bytes = encode_pixels(pixels, metadata.data_type());

  std::optional<SharedSegment> segment;
  std::vector<api::Tensor> tensors;
  if (options.shared_memory) {
    segment.emplace(bytes.size());
    std::memcpy(segment->data(), bytes.data(), bytes.size());
    segment->seal(group);
    tensors.push_back(sagemaker_edge::shared_tensor(metadata, *segment));
  } else {
    tensors.push_back(sagemaker_edge::inline_tensor(metadata, std::move(bytes)));
  }
  const std::vector<api::Tensor> outputs = client.predict(name, tensors);
  for (const api::Tensor& output : outputs) print_tensor(output);
  if (!options.capture) return EXIT_SUCCESS;

  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string id = "capture-" + std::to_string(getpid()) + "-" +
                         std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  client.capture(name, id, tensors, outputs);
  std::cout << "capture " << id << std::endl;
  const api::CaptureDataStatus status = wait_for_capture(client, id);
  std::cout << "status " << api::CaptureDataStatus_Name(status) << "\n";
  return status == api::SUCCESS ? EXIT_SUCCESS : kExitFailed;
}

int run(const std::string& socket, std::optional<gid_t> group, const std::vector<std::string>& words) {
  const std::string& command = words[0];
  const auto need = [&](std::size_t count) {
    if (words.size() != count + 1) {
      throw UsageError(command + " takes " + std::to_string(count) + " words, not " + std::to_string(words.size() - 1));
    }
  };
  Client client(socket);
  if (command == "ListModels") {
    need(0);
    const auto models = client.list_models();
    for (const api::Model& model : models) print_model(model);
    if (models.empty()) std::cout << "no model is loaded\n";
  } else if (command == "LoadModel") {
    need(2);
    print_model(client.load_model(words[1], words[2]));
  } else if (command == "DescribeModel") {
    need(1);
    print_model(client.describe_model(words[1]));
  } else if (command == "UnloadModel") {
    need(1);
    client.unload_model(words[1]);
    std::cout << "unloaded " << words[1] << "\n";
  } else if (command == "GetCaptureDataStatus") {
    need(1);
    std::cout << "status " << api::CaptureDataStatus_Name(client.capture_status(words[1])) << "\n";
  } else if (command == "Predict" || command == "PredictSHM" || command == "PredictAndCapture" ||
             command == "PredictSHMAndCapture") {
    need(6);
    const PredictOptions options{command.find("SHM") != std::string::npos, command.find("Capture") != std::string::npos};
    return predict(client, words, options, group);
  } else {
    throw UsageError("unknown command " + command);
  }
  return EXIT_SUCCESS;
}

gid_t group_argument(const char* name) {
  const group* entry = getgrnam(name);
  if (entry == nullptr) throw UsageError(std::string("no group named ") + name);
  return entry->gr_gid;
}

}  // namespace

int main(int argc, char** argv) {
  const char* from_environment = std::getenv("SAGEMAKER_EDGE_SOCKET");
  std::string socket = from_environment != nullptr ? from_environment : kDefaultSocket;
  std::optional<gid_t> group;
  try {
    for (int option; (option = getopt(argc, argv, "+a:g:h")) != -1;) {
      switch (option) {
        case 'a':
          socket = optarg;
          break;
        case 'g':
          group = group_argument(optarg);
          break;
        case 'h':
          std::cout << kUsage;
          return EXIT_SUCCESS;
        default:
          throw UsageError("");
      }
    }
    const std::vector<std::string> words(argv + optind, argv + argc);
    if (words.empty()) throw UsageError("a command is missing");
    return run(socket, group, words);
  } catch (const UsageError& error) {
    std::cerr << error.what() << "\n\n" << kUsage;
    return kExitUsage;
  } catch (const CallError& error) {
    std::cerr << error.what() << "\n";
    return error.code() == grpc::StatusCode::UNAVAILABLE ? kExitNoAgent : kExitFailed;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return kExitFailed;
  }
}
