/* Made from fcgiguard.h for PHP's FFI, which reads no preprocessor lines; do not edit. */
typedef struct fcgiguard_error fcgiguard_error;
fcgiguard_error *fcgiguard_error_new(void);
void fcgiguard_error_free(fcgiguard_error *error);
int32_t fcgiguard_error_code(const fcgiguard_error *error);
const char *fcgiguard_error_message(const fcgiguard_error *error);
const char *fcgiguard_code_name(int32_t code);
const char *fcgiguard_code_advice(int32_t code);
int32_t fcgiguard_code_at(size_t index);
