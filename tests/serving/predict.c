/* Runs a SavedModel by TensorFlow's C API, as programs without Python do. test_c_api.py compiles and calls it:

   predict EXPORT INPUT OUTPUT INDEX HEIGHT WIDTH < pixels > map

   INPUT and OUTPUT are operations of the graph, as the signature names them, INDEX is the number of OUTPUT's result.
   pixels: HEIGHT x WIDTH x 3 bytes of RGB. map: HEIGHT x WIDTH panoptic ids, int32. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void require(int holds, const char *what) {
  if (!holds) {
    fprintf(stderr, "predict: %s\n", what);
    exit(1);
  }
}

int main(int count, char **words) {
  require(count == 7, "expected EXPORT INPUT OUTPUT INDEX HEIGHT WIDTH");
  const int64_t shape[] = {1, atoi(words[5]), atoi(words[6]), 3};
  const size_t pixels = (size_t)(shape[1] * shape[2]);

  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, words[1], tags, 1, graph, NULL, status);
  require(TF_GetCode(status) == TF_OK, TF_Message(status));

  TF_Tensor *picture = TF_AllocateTensor(TF_UINT8, shape, 4, 3 * pixels);
  require(fread(TF_TensorData(picture), 1, 3 * pixels, stdin) == 3 * pixels, "too few pixels");

  TF_Output input = {TF_GraphOperationByName(graph, words[2]), 0};
  TF_Output output = {TF_GraphOperationByName(graph, words[3]), atoi(words[4])};
  require(input.oper != NULL && output.oper != NULL, "no such operation");
  TF_Tensor *map = NULL;
  TF_SessionRun(session, NULL, &input, &picture, 1, &output, &map, 1, NULL, 0, NULL, status);
  require(TF_GetCode(status) == TF_OK, TF_Message(status));

  require(TF_TensorByteSize(map) == 4 * pixels, "a map of another size");
  require(fwrite(TF_TensorData(map), 4, pixels, stdout) == pixels, "cannot write");
  TF_DeleteTensor(picture);
  TF_DeleteTensor(map);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
